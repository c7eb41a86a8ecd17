"""Outputs of networks with and without a class token and of CNNs, also at other sizes."""

import dataclasses

import pytest
import torch
from small_encoders import SIZE, encoder, picture, shared, spec

from pathencoder import network, outputs
from pathencoder.errors import ConfigError, ImageError

KINDS = ("vit", "no_cls", "cnn")


def batch(count=2, height=SIZE, width=SIZE):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_a_class_token_is_the_first_and_the_mean_leaves_it_out():
    enc = shared("vit")
    x = batch()
    tokens = enc.network.forward_features(x)
    features = enc(x)
    assert tokens.shape == (2, 1 + 16, 64)
    torch.testing.assert_close(features.cls, tokens[:, 0])
    torch.testing.assert_close(features.mean, tokens[:, 1:].mean(1))
    torch.testing.assert_close(features.cls_mean, torch.cat([features.cls, features.mean], dim=1))
    torch.testing.assert_close(features.dense[:, :, 1, 2], tokens[:, 1 + 4 + 2])


@pytest.mark.parametrize(
    ("rule", "pick"), [("cls", "cls"), ("mean", "mean"), ("cls_mean", "cls_mean")]
)
def test_the_embedding_follows_the_spec(rule, pick):
    width = 128 if rule == "cls_mean" else 64
    enc = encoder("vit", embedding=rule, dim=width)
    features = enc(batch())
    torch.testing.assert_close(features.embedding, getattr(features, pick))


def test_registers_without_a_class_token_are_left_out():
    enc = shared("no_cls")
    x = batch()
    tokens = enc.network.forward_features(x)
    features = enc(x)
    assert features.cls is None
    assert tokens.shape[1] == 1 + 16
    torch.testing.assert_close(features.mean, tokens[:, 1:].mean(1))
    with pytest.raises(ConfigError, match="no class token"):
        _ = features.cls_mean


def test_a_cnn_gives_its_last_map_and_the_means_of_named_stages():
    enc = encoder("cnn", embedding="stages:blocks.1,blocks.3", dim=16 + 48, dense_stage="blocks.1")
    x = batch()
    maps = dict(network.walk(enc.network, x))
    features = enc(x)
    means = [maps[s].mean((2, 3)) for s in ("blocks.1", "blocks.3")]
    torch.testing.assert_close(features.embedding, torch.cat(means, dim=1))
    torch.testing.assert_close(features.dense, maps["blocks.1"])
    torch.testing.assert_close(features.mean, enc.network.forward_features(x).mean((2, 3)))


def test_an_embedding_of_inner_stages_runs_no_further_than_these():
    enc = encoder("cnn", embedding="stages:blocks.1,blocks.3/mean,max", dim=2 * (24 + 48))
    x = batch()
    whole, read = enc(x).embedding, outputs.readout(enc.network, enc.spec, "embedding")

    def never(*_):
        raise AssertionError("a stage after those that are read")

    enc.network.blocks[4].register_forward_hook(never)
    assert torch.equal(read(x), whole)
    for bad in (x[0], x.double()):
        with pytest.raises(ImageError):
            read(bad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(SIZE, SIZE), (96, 32), (32, 128)])
def test_any_size_that_the_patches_divide(kind, height, width):
    enc = shared(kind)
    features = enc(batch(1, height, width))
    assert features.embedding.shape == (1, enc.spec.dim)
    h, w = features.dense.shape[2:]
    assert (h / w) == pytest.approx(height / width)
    assert enc.pyramid(batch(1, height, width))[0][-1].shape[:1] == (1,)
    assert outputs.read_multi(enc.network, enc.spec, batch(1, height, width)).shape[0] == 1


def test_odd_sizes_go_through_a_cnn_and_are_refused_by_patches():
    assert shared("cnn")(batch(1, 65, 77)).embedding.shape == (1, 256)
    enc = shared("vit")
    for read in (enc, enc.pyramid, outputs.readout(enc.network, enc.spec, "multi")):
        with pytest.raises(ImageError, match=r"multiples of 16 px, found 64 x 65"):
            read(batch(1, 64, 65))


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(3, 64, 64),
        torch.zeros(1, 1, 64, 64),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    ],
)
def test_other_tensors_are_refused(bad):
    with pytest.raises(ImageError, match="normalised float"):
        shared("cnn")(bad)


def test_multi_ends_with_the_last_block():
    for kind in ("vit", "no_cls"):
        enc = shared(kind)
        features = enc(batch())
        multi = outputs.read_multi(enc.network, enc.spec, batch())
        last = features.mean if features.cls is None else features.cls_mean
        assert multi.shape == (2, 4 * last.shape[1])
        torch.testing.assert_close(multi[:, -last.shape[1] :], last)
        assert not torch.allclose(multi[:, : last.shape[1]], last)
    cnn = shared("cnn")
    means = [m.mean((2, 3)) for m in network.stages(cnn.network, batch())[-4:]]
    torch.testing.assert_close(
        outputs.read_multi(cnn.network, cnn.spec, batch()), torch.cat(means, dim=1)
    )


def test_pyramids_and_their_strides():
    maps, strides = shared("cnn").pyramid(batch())
    assert strides == sorted(set(strides))
    assert [round(SIZE / m.shape[-1]) for m in maps] == strides
    maps, strides = shared("vit").pyramid(batch(), indices=[0, 5])
    assert strides == [16, 16]
    torch.testing.assert_close(maps[1], shared("vit")(batch()).dense)


def test_unknown_outputs_are_refused():
    enc = shared("cnn")
    with pytest.raises(ConfigError, match="output='pooled': one of embedding"):
        outputs.readout(enc.network, enc.spec, "pooled")
    for output in ("cls", "cls_mean"):
        with pytest.raises(ConfigError, match="no class token"):
            outputs.readout(enc.network, enc.spec, output)
    with pytest.raises(ConfigError, match="no known stages"):
        network.stages(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), batch())


def test_channels_last_maps_become_channels_first():
    wanted = dataclasses.replace(
        spec("cnn"), architecture="swin_tiny_patch4_window7_224", dim=768, width=768
    )
    net = network.create(wanted)
    assert outputs.read(
        net.to("meta"), wanted, torch.zeros(1, 3, 224, 224, device="meta")
    ).dense.shape == (1, 768, 7, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_weights(kind):
    enc = encoder(kind)
    enc(batch()).embedding.square().mean().backward()
    first = next(enc.parameters())
    assert first.grad is not None
    assert first.grad.abs().max() > 0


def test_a_stage_that_the_network_lacks_is_refused():
    with pytest.raises(
        ConfigError, match=r"reads stage 'blocks\.99', which its network lacks; it has"
    ):
        encoder("cnn", dense_stage="blocks.99").encode(picture())

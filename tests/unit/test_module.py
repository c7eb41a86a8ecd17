"""`as_module`: one tensor in, one tensor out, in everything that runs a torch module."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from small_encoders import SIZE, encoder, picture, shared
from torch import nn

from pathencoder.errors import ConfigError, ImageError

KINDS = ["cnn", "vit", "no_cls"]


def close(found, expected):
    """Equal up to the order of sums; the values of random networks have any magnitude."""
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def batch(kind="cnn", count=2):
    return torch.stack([shared(kind).transform(picture(i)) for i in range(count)])


def embedded(kind, x):
    with torch.inference_mode():
        return shared(kind)(x).embedding


@pytest.mark.parametrize("kind", KINDS)
def test_it_returns_the_encoders_embedding(kind):
    x = batch(kind)
    module = shared(kind).as_module()
    with torch.inference_mode():
        found = module(x)
    torch.testing.assert_close(found, embedded(kind, x), rtol=0, atol=0)
    assert module.num_features == module.embed_dim == found.shape[1]
    assert not module.training


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", ["cls", "mean", "cls_mean", "multi", "dense", "tokens"])
def test_every_output_and_its_number_of_features(kind, output):
    if output in ("cls", "cls_mean") and kind != "vit":
        with pytest.raises(ConfigError, match="no class token"):
            shared(kind).as_module(output=output)
        return
    module = shared(kind).as_module(output=output)
    with torch.inference_mode():
        found = module(batch(kind))
    axis = 2 if output == "tokens" else 1
    assert found.shape[axis] == module.num_features
    if output != "tokens":
        expected = shared(kind).encode([picture(0), picture(1)], output=output)
        close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_the_positions_of_the_dense_map(kind):
    x = batch(kind)
    with torch.inference_mode():
        tokens = shared(kind).as_module(output="tokens")(x)
        dense = shared(kind).as_module(output="dense")(x)
    torch.testing.assert_close(tokens.mT.reshape(dense.shape), dense, rtol=0, atol=0)


@pytest.mark.parametrize("input_format", ["uint8_nhwc", "uint8_nchw"])
def test_uint8_is_normalised_exactly_as_by_the_transform(input_format):
    pixels = torch.from_numpy(np.stack([picture(i) for i in range(3)]))
    module = shared().as_module(input_format=input_format)
    taken = pixels if input_format == "uint8_nhwc" else pixels.permute(0, 3, 1, 2)
    normalised = shared().transform.normalise(pixels)
    torch.testing.assert_close(module._normalised(taken), normalised, rtol=0, atol=0)
    with torch.inference_mode():
        found = module(taken)
    close(found, embedded("cnn", normalised))


@pytest.mark.parametrize(
    ("input_format", "x"),
    [
        ("normalised", torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)),
        ("uint8_nhwc", torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)),
        ("uint8_nchw", torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)),
        ("uint8_nchw", torch.zeros(1, 3, SIZE, SIZE)),
        ("uint8_nhwc", torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8)),
    ],
)
def test_another_form_is_refused(input_format, x):
    with pytest.raises(ImageError, match=r"takes (uint8|normalised float)"):
        shared().as_module(input_format=input_format)(x)


def test_unknown_arguments_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="one of embedding, cls"):
        shared().as_module(output="logits")
    with pytest.raises(ConfigError, match="one of normalised, uint8_nhwc"):
        shared().as_module(input_format="nhwc")


def test_weights_in_another_dtype():
    enc = encoder("vit").to(torch.bfloat16)
    pixels = torch.from_numpy(picture()[None])
    assert enc.as_module(input_format="uint8_nhwc")(pixels).dtype == torch.bfloat16


def test_a_probe_on_frozen_and_on_trained_weights():
    enc = encoder("cnn")
    probe = nn.Sequential(enc.as_module(), nn.Linear(256, 2)).train()
    probe(batch()).sum().backward()
    assert next(enc.network.parameters()).grad is not None
    assert enc.network.training


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_pickles_return_the_same(kind):
    x = batch(kind)
    module = encoder(kind).as_module()
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    for same in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(stored, weights_only=False),
    ):
        with torch.inference_mode():
            torch.testing.assert_close(same(x), module(x), rtol=0, atol=0)


def test_the_state_dict_is_that_of_the_encoder():
    enc, other = encoder("vit"), encoder("vit")
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.5)
    module = enc.as_module()
    assert module.state_dict().keys() == enc.state_dict().keys()
    module.load_state_dict(other.state_dict())
    x = batch("vit")
    with torch.inference_mode():
        torch.testing.assert_close(enc(x).embedding, other(x).embedding, rtol=0, atol=0)


@pytest.mark.parametrize("input_format", ["normalised", "uint8_nhwc"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traced(kind, input_format):
    module = shared(kind).as_module(input_format=input_format)
    pixels = torch.from_numpy(np.stack([picture(i) for i in range(5)]))
    x = pixels if input_format == "uint8_nhwc" else shared(kind).transform.normalise(pixels)
    traced = torch.jit.trace(module, x[:2])
    with torch.inference_mode():
        close(traced(x), module(x))


@pytest.mark.parametrize("input_format", ["normalised", "uint8_nhwc"])
@pytest.mark.parametrize("kind", KINDS)
def test_exported_with_any_number_of_images(kind, input_format):
    module = shared(kind).as_module(input_format=input_format)
    pixels = torch.from_numpy(np.stack([picture(i) for i in range(5)]))
    x = pixels if input_format == "uint8_nhwc" else shared(kind).transform.normalise(pixels)
    dynamic = ({0: torch.export.Dim("n", min=1, max=64)},)
    exported = torch.export.export(module, (x[:2],), dynamic_shapes=dynamic)
    with torch.inference_mode():
        close(exported.module()(x), module(x))


def test_compiled():
    module = shared("vit").as_module()
    with torch.inference_mode():
        found = torch.compile(module, backend="eager")(batch("vit"))
        close(found, module(batch("vit")))


def test_in_data_parallel():
    module = encoder("cnn").as_module()
    with torch.inference_mode():
        found = nn.DataParallel(module)(batch())
        torch.testing.assert_close(found, module(batch()), rtol=0, atol=0)


def test_a_replica_has_no_parameters_and_runs():
    """DataParallel on several GPUs runs replicas: their weights are plain attributes."""
    module = encoder("cnn").as_module(input_format="uint8_nhwc")
    replica = copy.deepcopy(module)
    for part in replica.modules():
        for name in list(part._parameters):
            weight = part._parameters.pop(name)
            if weight is not None:
                setattr(part, name, weight.detach())
            else:
                setattr(part, name, None)
    pixels = torch.from_numpy(picture()[None])
    assert not list(replica.parameters())
    with torch.inference_mode():
        close(replica(pixels), module(pixels))


@pytest.mark.parametrize(("kind", "layer"), [("cnn", "blocks"), ("vit", "blocks")])
def test_hooks_as_grad_cam_sets_them(kind, layer):
    module = encoder(kind).as_module()
    target = getattr(module.network, layer)[0]
    seen = {}
    target.register_forward_hook(lambda m, i, o: seen.update(activation=o))
    target.register_full_backward_hook(lambda m, gi, go: seen.update(gradient=go[0]))
    module(batch(kind).requires_grad_())[:, 3].sum().backward()
    assert seen["activation"].shape == seen["gradient"].shape
    assert seen["gradient"].abs().sum() > 0


def test_its_transform_is_the_encoders():
    assert shared().as_module().transform == shared().transform

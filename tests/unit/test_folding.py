"""The copy of a CNN that a CPU runs: the same rows, whatever is done to the network."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pathencoder import folding, network
from pathencoder.encoder import Encoder, load_encoder
from pathencoder.folding import folded
from pathencoder.spec import EncoderSpec
from pathencoder.stream import Settings

CNNS = ("resnet18", "mobilenetv2_050", "tf_efficientnet_lite0")


def trained(architecture):
    """A random network whose BatchNorms have statistics, factors and shifts of their own."""
    torch.manual_seed(0)
    made = network.build(architecture, {}).eval()
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    return made


def assert_same(one, other, side=64):
    x = torch.randn((2, 3, *(side if isinstance(side, tuple) else (side, side))))
    with torch.inference_mode():
        expected, found = one.forward_features(x), other.forward_features(x)
    assert not torch.equal(expected, torch.zeros_like(expected))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("side", [64, 65, (66, 97)], ids=str)
@pytest.mark.parametrize("architecture", CNNS)
def test_a_folded_network_gives_the_same_maps_and_has_no_batch_norm(architecture, side):
    made = trained(architecture)
    twin = folded(made)
    assert twin is not made
    assert not [m for m in twin.modules() if isinstance(m, nn.BatchNorm2d)]
    assert_same(made, twin, side)


def test_the_network_keeps_its_modules_weights_and_mode():
    made = trained("resnet18").train()
    before = copy.deepcopy(made.state_dict())
    types = [type(m) for m in made.modules()]
    twin = folded(made)
    assert [type(m) for m in made.modules()] == types
    assert all(m.training for m in made.modules())
    assert not any(m.training for m in twin.modules())
    assert all(torch.equal(v, made.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize("change", ["in place", "data", "new parameter", "statistics", "module"])
def test_later_changes_of_the_network_are_followed(change):
    made = trained("mobilenetv2_050")
    folded(made)
    with torch.no_grad():
        if change == "in place":
            made.conv_stem.weight.mul_(2)
        elif change == "data":
            made.conv_stem.weight.data.mul_(2)
        elif change == "new parameter":
            made.conv_stem.weight = nn.Parameter(made.conv_stem.weight * 2)
        elif change == "statistics":
            made.bn1.running_mean.add_(1)
        else:
            made.blocks[0][0].conv_dw = nn.Conv2d(16, 16, 3, padding=1, groups=16)
    assert_same(made, folded(made))


def test_tensors_that_are_not_folded_are_shared():
    made = trained("mobilenetv3_small_050")
    twin = folded(made)
    expansion = made.blocks[0][0].se.conv_expand  # no BatchNorm follows
    assert twin.blocks[0][0].se.conv_expand.weight is expansion.weight


def test_a_network_with_hooks_is_run_itself():
    made = trained("resnet18")
    handle = made.layer1.register_forward_hook(lambda *_: None)
    assert folded(made) is made
    handle.remove()
    assert folded(made) is not made


def test_a_batch_norm_that_does_not_read_the_convolution_before_it_is_left():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.bn = nn.BatchNorm2d(3)

        def forward_features(self, x):
            return self.conv(self.bn(x))

    made = Crossed().eval()
    assert folding._pairs(made)
    assert folded(made) is made


def test_a_network_in_a_wrapper_and_with_a_wrapped_part():
    made = trained("resnet18")
    averaged = AveragedModel(made)
    twin = folding.for_inference(averaged, "auto")
    assert twin is folded(averaged.module)
    assert twin is not averaged.module
    made.layer1 = nn.DataParallel(made.layer1)
    assert folded(made) is made


def test_networks_without_batch_norm_are_run_themselves():
    made = network.build("convnext_atto", {})
    assert folded(made) is made


def test_a_copy_does_not_keep_its_network_alive():
    made = trained("resnet18")
    folded(made)
    seen = weakref.ref(made)
    del made
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize(
    ("precision", "is_folded"), [("auto", True), ("fp32", True), ("bf16", False)]
)
def test_only_float32_is_folded(precision, is_folded):
    spec = EncoderSpec(
        name="x",
        architecture="resnet18",
        dim=512,
        width=512,
        embedding="pool",
        input_size=64,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    encoder = Encoder(trained("resnet18"), spec)
    runner = encoder.runner(Settings(precision=precision))
    assert (runner.network is not encoder.network) == is_folded


def test_encode_gives_the_rows_of_the_default_network():
    encoder = load_encoder(device="cpu")
    tiles = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    tensors = torch.stack([encoder.transform(tile) for tile in tiles])
    with torch.inference_mode():
        rows = encoder(tensors).embedding
    np.testing.assert_allclose(encoder.encode(tiles), rows, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("changes", [{"embedding": "stages:conv1/mean"}, {"dense_stage": "conv1"}])
def test_a_convolution_that_is_read_by_name_is_not_folded(changes):
    spec = EncoderSpec(
        **{
            "name": "x",
            "architecture": "resnet18",
            "dim": 64 if "embedding" in changes else 512,
            "width": 512,
            "embedding": "pool",
            "input_size": 64,
            "mean": (0.5,) * 3,
            "std": (0.25,) * 3,
            **changes,
        }
    )
    encoder = Encoder(trained("resnet18"), spec)
    plain = folded(encoder.network)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = encoder(torch.stack([encoder.transform(tile) for tile in tiles]))
    for output in ("embedding", "dense"):
        found = encoder.encode(tiles, output=output)
        np.testing.assert_allclose(found, getattr(expected, output), rtol=1e-3, atol=1e-4)
    assert [n for n, m in encoder.runner(Settings()).network.named_modules() if _is_norm(m)] == [
        "bn1"
    ]
    assert folded(encoder.network) is plain


def _is_norm(module):
    return isinstance(module, nn.BatchNorm2d)

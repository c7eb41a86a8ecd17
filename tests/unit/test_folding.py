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
from trained_cnns import trained

from pathencoder import folding, network
from pathencoder.encoder import Encoder, load_encoder
from pathencoder.folding import folded, for_training
from pathencoder.spec import EncoderSpec
from pathencoder.stream import Settings

CNNS = ("resnet18", "mobilenetv2_050", "tf_efficientnet_lite0")


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


@pytest.mark.parametrize(
    "change", ["in place", "data", "new parameter", "statistics", "module", "stride", "slope"]
)
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
        elif change == "stride":
            made.conv_stem.stride = (1, 1)
        elif change == "slope":
            made.bn1.act.max_val = 0.5
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
    assert for_training(made) is made


def gradients(run, made, x):
    made.zero_grad()
    maps = run.forward_features(x)
    (maps**2).sum().backward()
    return maps.detach(), {
        name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("side", [64, 65, (66, 97)], ids=str)
@pytest.mark.parametrize("architecture", CNNS)
def test_a_copy_for_training_gives_the_same_maps_and_the_network_the_same_gradients(
    architecture, side
):
    made = trained(architecture)
    folded(made, trained=True)  # its trial is in float32
    made.double()
    twin = folded(made, trained=True)
    assert not [n for n, m in twin.named_modules() if _is_norm(m) and not n.endswith(".norm")]
    assert {id(p) for p in twin.parameters()} == {id(p) for p in made.parameters()}
    x = torch.randn((2, 3, *(side if isinstance(side, tuple) else (side, side)))).double()
    expected, theirs = gradients(made, made, x)
    found, ours = gradients(twin, made, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        near = 1e-9 * float(value.abs().max())
        torch.testing.assert_close(ours[name], value, rtol=1e-7, atol=near)


@pytest.mark.parametrize("change", ["in place", "new parameter", "statistics", "module"])
def test_a_copy_for_training_follows_later_changes(change):
    made = trained("mobilenetv2_050")
    first = for_training(made)
    with torch.no_grad():
        if change == "in place":
            made.conv_stem.weight.mul_(2)
        elif change == "new parameter":
            made.conv_stem.weight = nn.Parameter(made.conv_stem.weight * 2)
        elif change == "statistics":
            made.bn1.running_mean = made.bn1.running_mean + 1
        else:
            made.blocks[0][0].conv_dw = nn.Conv2d(16, 16, 3, padding=1, groups=16)
    again = for_training(made)
    assert_same(made, again)
    assert (again is first) == (change != "module")
    assert again is not folded(made)


def test_a_copy_for_training_does_not_learn_what_is_frozen():
    made = trained("mobilenetv2_050")
    made.blocks[:4].requires_grad_(False)
    _, found = gradients(for_training(made), made, torch.randn((2, 3, 64, 64)))
    assert not [name for name in found if name.startswith("blocks.0")]
    assert "blocks.5.0.bn2.bias" in found


@pytest.mark.full
def test_a_copy_for_training_holds_the_adapters_of_lora():
    from peft import LoraConfig, get_peft_model

    made = trained("tf_efficientnet_lite0")
    targets = [name for name, m in made.named_modules() if type(m) is nn.Conv2d and m.groups == 1]
    model = get_peft_model(made, LoraConfig(r=2, target_modules=targets)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # else the adapters change nothing
            nn.init.normal_(parameter, std=0.1)
    inner = model.get_base_model()
    for_training(model)
    inner.double()
    twin = folded(inner, trained=True)
    x = torch.randn((2, 3, 64, 64)).double()
    expected, theirs = gradients(inner, inner, x)
    calls = []
    for module in twin.modules():
        if type(module).__module__.startswith("peft."):
            module.register_forward_hook(lambda *_: calls.append(1))
    found, ours = gradients(twin, inner, x)
    assert not calls  # one convolution in place of three
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert ours.keys() == theirs.keys() == {n for n, p in inner.named_parameters() if "lora_" in n}
    for name, value in theirs.items():
        near = 1e-9 * float(value.abs().max())
        torch.testing.assert_close(ours[name], value, rtol=1e-7, atol=near)
    # for inference they could be switched off later, without a word
    assert [m for m in folded(inner).modules() if type(m).__module__.startswith("peft.")]


def test_gradients_of_mixed_precision_are_as_near_to_float32_as_without_the_copy():
    made = load_encoder(device="cpu").network
    x = torch.rand((4, 3, 128, 128)) * 2 - 1
    _, exact = gradients(made, made, x)

    def near(found):
        pairs = [(found[name].flatten(), value.flatten()) for name, value in exact.items()]
        return np.array([float(nn.functional.cosine_similarity(*pair, dim=0)) for pair in pairs])

    with torch.autocast("cpu", torch.bfloat16):
        twin = for_training(made)
        norms = [name for name, m in twin.named_modules() if _is_norm(m)]
        assert not [name for name in norms if not name.endswith(".norm")]
        plain, copied = (near(gradients(run, made, x)[1]) for run in (made, twin))
    assert copied.mean() > plain.mean() - 0.005
    assert copied.min() > 0.9


def test_networks_of_other_precision_are_trained_themselves():
    made = trained("resnet18").half()
    assert for_training(made) is made


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

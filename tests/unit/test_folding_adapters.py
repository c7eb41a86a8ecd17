"""The copy of a CNN that a CPU runs follows adapters that are switched, merged or scaled."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from trained_cnns import trained

from pathencoder.folding import folded, for_training

pytestmark = pytest.mark.full


def with_adapters(*names):
    """A PeftModel with LoRA adapters that change the result, and its network."""
    from peft import LoraConfig, get_peft_model

    made = trained("mobilenetv2_050")
    targets = [name for name, m in made.named_modules() if type(m) is nn.Conv2d and m.groups == 1]
    settings = LoraConfig(r=2, target_modules=targets)
    model = get_peft_model(made, settings, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval(), model.get_base_model()


def off_and_on(model):
    model.base_model.disable_adapter_layers()
    yield
    model.base_model.enable_adapter_layers()
    yield


def merged_and_back(model):
    model.merge_adapter()
    yield
    model.unmerge_adapter()
    yield


def merged_then_off(model):
    model.merge_adapter()
    yield
    model.base_model.disable_adapter_layers()
    yield  # it was merged until it ran once more
    yield
    model.base_model.enable_adapter_layers()
    yield


def other_adapter(model):
    model.set_adapter("two")
    yield
    model.set_adapter("one")
    yield


def scaled(model):
    for module in model.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("one", 0.25)
    yield


@pytest.mark.parametrize("first", ["run before", "not run before"])
@pytest.mark.parametrize(
    "changes", [off_and_on, merged_and_back, merged_then_off, other_adapter, scaled]
)
@pytest.mark.parametrize("run", [folded, for_training])
def test_a_copy_follows_the_state_of_adapters(run, changes, first):
    model, inner = with_adapters("one", "two")
    x = torch.randn((2, 3, 64, 64))
    rows = []
    if first == "run before":
        run(inner)
    for _ in changes(model):
        with torch.inference_mode():
            reference = copy.deepcopy(inner).forward_features(x)
            found = run(inner).forward_features(x)
        near = 1e-4 * float(reference.abs().max())
        torch.testing.assert_close(found, reference, rtol=1e-4, atol=near)
        rows.append(reference)
    assert len(rows) == 1 or not torch.equal(rows[0], rows[1])


def test_merged_adapters_that_are_switched_off_leave_the_weights_right():
    model, inner = with_adapters("one")
    with torch.inference_mode():
        x = torch.randn((2, 3, 64, 64))
        before = inner.forward_features(x)
        folded(inner)
        model.merge_adapter()
        folded(inner).forward_features(x)
        model.base_model.disable_adapter_layers()
        folded(inner).forward_features(x)
        model.base_model.enable_adapter_layers()
        torch.testing.assert_close(inner.forward_features(x), before, rtol=1e-3, atol=1e-4)

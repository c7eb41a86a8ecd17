"""Targets have no noise: two passes of a teacher are equal, whatever is dropped in training."""

import pytest
import torch
from small_methods import SMALL, rng, small_method, small_views
from torch import nn

from pathencoder.errors import ConfigError
from training.methods.parts.teacher import as_teacher

pytestmark = pytest.mark.full
NOISE = (
    ("test_vit", {"drop_path_rate": 0.3}),
    ("test_vit", {"pos_drop_rate": 0.3}),
    ("test_vit", {"proj_drop_rate": 0.3}),
    ("test_vit", {"attn_drop_rate": 0.3}),
    ("test_vit", {"patch_drop_rate": 0.3}),
    ("test_resnet", {"drop_path_rate": 0.3, "zero_init_last": False}),
    ("test_efficientnet", {"drop_path_rate": 0.3, "drop_rate": 0.3}),
)
TEACHERS = [name for name, settings in SMALL.items() if settings.name in ("byol", "dino")]
CASES = [
    (name, *noise)
    for name in TEACHERS
    for noise in NOISE
    # dense tasks, which are the student's, name modules of one network and need all patches
    # masked patches are of ViTs that keep all patches
    if "dense tasks" not in name
    and (
        not getattr(SMALL[name], "patches", None)
        or (noise[0] == "test_vit" and "patch_drop_rate" not in noise[1])
    )
]


def outputs(method, *, trained, seed):
    """What the trained or the fixed modules with weights return during the loss."""
    torch.manual_seed(seed)
    seen = []
    for module in method.modules():
        weights = list(module.parameters())
        if weights and all(p.requires_grad == trained for p in weights):
            module.register_forward_hook(lambda _m, _i, out: seen.append(out.detach().clone()))
    method.loss(small_views(method), 50)
    return seen


@pytest.mark.parametrize(("name", "architecture", "noise"), CASES)
def test_two_passes_give_equal_targets(name, architecture, noise):
    first, second, student, again = (
        outputs(small_method(SMALL[name], architecture, **noise), trained=trained, seed=seed)
        for trained in (False, True)
        for seed in (1, 2)
    )
    assert len(first) == len(second) > 0
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # the student keeps its noise
    assert not all(torch.equal(a, b) for a, b in zip(student, again, strict=True))


def test_every_method_with_a_teacher_is_tested():
    """A method whose loss runs modules without gradients belongs to TEACHERS."""
    for name, settings in SMALL.items():
        seen = outputs(small_method(settings), trained=False, seed=1)
        assert bool(seen) == (name in TEACHERS)


def test_encoders_that_distil_are_in_eval_mode():
    teachers = small_method(SMALL["distill"]).train()._teachers
    assert not any(m.training for teacher in teachers for m in teacher.modules())


def test_batch_norm_of_a_teacher_uses_its_batch_and_everything_else_is_restored():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Sequential(nn.Linear(3, 2)))
    network[2].eval()
    x = 5 + torch.randn(16, 3, generator=rng(0))
    modes = [m.training for m in network.modules()]
    with as_teacher(network, None):
        assert torch.equal(network[0](x), nn.BatchNorm1d(3).train()(x))
        assert torch.equal(network[1](x), x)
        assert not network[2](x).requires_grad
    assert [m.training for m in network.modules()] == modes
    with as_teacher(network.eval()):
        assert torch.allclose(network[0](x), nn.BatchNorm1d(3).eval()(x), atol=2)
        assert network[0].training is False


def test_dropped_patches_cannot_be_predicted():
    with pytest.raises(ConfigError, match="patch_drop_rate"):
        small_method(SMALL["dino, patches, kde"], patch_drop_rate=0.3)

"""Masked patches of ViTs, with and without registers, and the loss against a double loop."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pathencoder import compat
from pathencoder.errors import ConfigError
from training.methods import Plan, dino
from training.methods.parts import ibot
from training.methods.parts.ibot import PatchSettings

pytestmark = pytest.mark.full


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def vit(registers=0):
    torch.manual_seed(0)
    make = compat.import_timm().create_model
    return make(
        "test_vit",
        num_classes=0,
        img_size=32,
        patch_size=8,
        dynamic_img_size=True,
        depth=2,
        reg_tokens=registers,
    )


def positions(mask):
    return mask.flatten().nonzero()[:, 0]


def test_the_loss_is_a_mean_of_image_means():
    mask = torch.zeros(3, 2, 2, dtype=torch.bool)
    mask[0, 0, 1] = mask[2, 0, 0] = mask[2, 1, 0] = mask[2, 1, 1] = True
    logits, q = (
        torch.randn(4, 5, generator=rng()),
        torch.softmax(torch.randn(4, 5, generator=rng(1)), 1),
    )
    each = [
        -sum(float(q[i, k]) * float(torch.log_softmax(logits[i] / 0.1, 0)[k]) for k in range(5))
        for i in range(4)
    ]
    expected = (each[0] + 0 + sum(each[1:]) / 3) / 3
    assert float(
        ibot.patch_loss(logits, q, mask, positions(mask), temperature=0.1)
    ) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_masks_has_a_loss_of_zero_with_a_gradient():
    logits = torch.zeros(0, 5, requires_grad=True)
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    loss = ibot.patch_loss(logits, torch.zeros(0, 5), mask, positions(mask), temperature=0.1)
    loss.backward()
    assert float(loss.detach()) == 0


def test_random_masks_hide_exactly_their_share():
    masks = ibot.draw_masks(
        40, (6, 8), PatchSettings(shape="random", share=(0.25, 0.25), probability=0.5), rng()
    )
    counts = masks.flatten(1).sum(1)
    assert sorted(set(counts.tolist())) == [0, 12]
    assert int((counts > 0).sum()) == 20
    assert int(masks.any(0).sum()) == 48


def test_blocks_have_nearly_their_share_and_few_edges():
    settings = PatchSettings(shape="block", share=(0.3, 0.3), probability=1.0)
    masks = ibot.draw_masks(200, (14, 14), settings, rng())
    shares = masks.flatten(1).float().mean(1)
    assert float(shares.min()) > 0.2
    assert float(shares.max()) < 0.4
    assert float(shares.mean()) == pytest.approx(0.3, abs=0.01)
    single = ibot.draw_masks(200, (14, 14), settings.model_copy(update={"shape": "random"}), rng())
    assert _edges(masks) < 0.5 * _edges(single)
    assert int(masks.any(0).sum()) == 14 * 14


def _edges(masks):
    m = masks.float()
    return float(
        ((m[:, 1:] - m[:, :-1]).abs().sum() + (m[..., 1:] - m[..., :-1]).abs().sum()) / m.sum()
    )


@pytest.mark.parametrize("registers", [0, 2])
def test_hidden_patches_do_not_change_the_output(registers):
    """Pixels under the mask do not change the output and others do, inside the block only."""
    network, token = vit(registers).eval(), ibot.MaskToken(64)
    x = torch.randn(2, 3, 32, 32, generator=rng())
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, 1, 2] = True
    other = x.clone()
    other[:, :, 8:16, 16:24] += 1.0
    with torch.no_grad():
        plain = network(x)
        with ibot.hidden(network, token, mask), ibot.tokens_of(network) as seen:
            a, b = network(x), network(other)
        with ibot.hidden(network, token, mask):
            beside = network(other.roll(8, dims=3))
        assert torch.equal(network(x), plain)
    assert torch.allclose(a, b, atol=1e-6)
    assert not torch.allclose(a, beside, atol=1e-3)
    assert not torch.allclose(a, plain, atol=1e-3)
    assert [t.shape for t in seen] == [(2, 16, 64)] * 2


def method(**patches):
    plan = Plan(vit, 64, 100, 32, 1000, (0.5,) * 3, (0.5,) * 3, rng())
    settings = dino.Settings(
        global_crops={"px": 32},
        local_crops={"count": 1, "px": 16},
        hidden=16,
        bottleneck=8,
        prototypes=16,
        patches=PatchSettings(**patches),
    )
    return dino.build(settings, plan).train()


def views(made):
    g = rng(1)
    crops = [torch.randn(4, 3, px, px, generator=g) for px in (32, 32, 16)]
    return crops + made.patches.masks(crops[:2], made.backbone, g)


@pytest.mark.parametrize("own_head", [True, False])
def test_the_student_and_the_mask_token_have_gradients_and_the_teacher_has_none(own_head):
    made = method(own_head=own_head)
    loss, logs = made.loss(views(made), 50)
    loss.backward()
    assert made.patches.mask_token.token.grad.abs().sum() > 0
    assert all(p.grad is not None for p in made.parameters() if p.requires_grad)
    assert all(p.grad is None for p in made.teacher.parameters())
    assert 0 < logs["patch_loss"] < float(loss.detach())
    assert (made.patches.student_head is not None) == own_head


def test_the_loss_reads_nothing_from_the_device():
    made, names = method(), []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            by_mask = name == "index" and any(
                i is not None and i.dtype is torch.bool for i in args[1]
            )
            if by_mask or name in ("nonzero", "masked_select", "_local_scalar_dense"):
                names.append(name)
            return function(*args, **(kwargs or {}))

    given = views(made)
    with Reads():
        made.loss(given, 50)
    assert names == []


def test_the_teachers_patch_head_starts_as_a_copy_and_follows():
    made = method(own_head=True)
    student, teacher = (
        made.patches.student_head.state_dict(),
        made.patches.teacher_head.state_dict(),
    )
    assert all(torch.equal(student[k], teacher[k]) for k in student)
    assert not {v.data_ptr() for v in student.values()} & {v.data_ptr() for v in teacher.values()}
    with torch.no_grad():
        made.patches.student_head.last.weight.add_(1.0)
    before = made.patches.teacher_head.last.weight.clone()
    made.after_step(0)
    assert (made.patches.teacher_head.last.weight > before).all()


def test_the_teacher_gets_whole_images():
    """Other masks give the same targets."""
    made = method().eval()
    crops = views(made)[:3]
    masks = [torch.ones(4, 4, 4, dtype=torch.bool)] * 2
    every = positions(torch.cat(masks))
    _, logs = made.loss([*crops, *masks, every], 50)
    _, others = made.loss([*crops, *(~m for m in masks), every[:0]], 50)
    assert float(logs["teacher_entropy"]) == pytest.approx(
        float(others["teacher_entropy"]), rel=1e-6
    )
    assert others["patch_loss"] == 0


def test_a_cnn_has_no_patches_to_mask():
    with pytest.raises(ConfigError, match="masks patches of a ViT, which Sequential is not"):
        ibot.MaskedPatches(
            PatchSettings(), nn.Sequential(nn.Conv2d(3, 8, 3)), lambda: nn.Linear(8, 8)
        )

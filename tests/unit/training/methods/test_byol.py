"""BYOL's loss against a plain reference, its limits and gradients, and an independent target."""

import pytest
import torch
from torch import nn

from pathencoder.errors import ConfigError
from training import config
from training.methods import Plan, byol

pytestmark = pytest.mark.full


def rows(n=6, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_loss_is_the_squared_distance_of_unit_vectors():
    p, z = rows(seed=1), rows(seed=2)
    plain = sum(
        float(((a / a.norm() - b / b.norm()) ** 2).sum()) for a, b in zip(p, z, strict=True)
    ) / len(p)
    assert float(byol.byol_loss(p, z)) == pytest.approx(plain, rel=1e-5)


def test_the_loss_depends_on_directions_only_and_is_in_0_to_4():
    p, z = rows(seed=1), rows(seed=2)
    turn = torch.linalg.qr(rows(5, 5, seed=3)).Q
    loss = float(byol.byol_loss(p, z))
    assert float(byol.byol_loss(3 * p, z / 7)) == pytest.approx(loss, rel=1e-5)
    assert float(byol.byol_loss(p @ turn, z @ turn)) == pytest.approx(loss, rel=1e-5)
    assert float(byol.byol_loss(p, 2 * p)) == pytest.approx(0, abs=1e-6)
    assert float(byol.byol_loss(p, -p)) == pytest.approx(4, rel=1e-5)


def test_only_the_prediction_has_a_gradient():
    p, z = rows().requires_grad_(), rows(seed=1).requires_grad_()
    byol.byol_loss(p, z).backward()
    assert p.grad.abs().sum() > 0
    assert z.grad is None


def small(**settings):
    def backbone():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    plan = Plan(backbone, 8, 100, 32, 1000, (0.5,) * 3, (0.5,) * 3, torch.Generator())
    return byol.build(byol.Settings(hidden=16, out=6, **settings), plan).train()


def views(n=2, n_small=0):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, px, px, generator=g) for px in (32,) * n + (16,) * n_small]


def test_the_loss_is_symmetric_in_its_two_views():
    # in eval mode BatchNorm uses running statistics: rows do not depend on each other
    method, (a, b) = small().eval(), views()
    expected = (
        sum(
            byol.byol_loss(method.predictor(method.online(x)), method.target(y))
            for x, y in ((a, b), (b, a))
        )
        / 2
    )
    assert method.loss([a, b], 0)[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert method.loss([b, a], 0)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_small_crops_predict_every_large_one():
    method, made = small(local_crops={"count": 1, "px": 16}).eval(), views(2, 1)
    pairs = [(0, 1), (1, 0), (2, 0), (2, 1)]
    expected = (
        sum(
            byol.byol_loss(method.predictor(method.online(made[s])), method.target(made[t]))
            for s, t in pairs
        )
        / 4
    )
    assert method.loss(made, 0)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_target_starts_as_a_copy_and_has_no_gradient():
    method = small()
    online, target = method.online.state_dict(), method.target.state_dict()
    assert all(torch.equal(online[k], target[k]) for k in online)
    assert not {v.data_ptr() for v in online.values()} & {v.data_ptr() for v in target.values()}
    method.loss(views(), 0)[0].backward()
    assert all(
        p.grad is not None for p in (*method.online.parameters(), *method.predictor.parameters())
    )
    assert all(p.grad is None for p in method.target.parameters())
    assert not {id(p) for p in method.encoder().parameters()} & {
        id(p) for p in method.backbone.parameters()
    }


def test_the_target_follows_along_the_cosine():
    method = small(momentum=0.9)
    before = method.target[0][0].weight.clone()
    with torch.no_grad():
        method.online[0][0].weight.add_(1.0)
    method.after_step(0)
    assert torch.allclose(
        method.target[0][0].weight - before, torch.full_like(before, 0.1), atol=1e-6
    )
    method.after_step(100)  # at the end it does not move
    assert torch.allclose(
        method.target[0][0].weight - before, torch.full_like(before, 0.1), atol=1e-6
    )


@pytest.mark.parametrize(
    ("method", "crops"), [("byol", "crop"), ("simclr", "crop"), ("dino", "global_crops")]
)
def test_one_crop_is_refused(method, crops):
    values = {
        "method": {"name": method, crops: {"count": 1}},
        "data": {"root": "x"},
        "optim": {"steps": 1},
        "run": {"out": "y"},
    }
    with pytest.raises(ConfigError, match="at least 2"):
        config.check(values)

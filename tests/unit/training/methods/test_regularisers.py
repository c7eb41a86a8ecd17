"""KoLeo, KDE, centring and Sinkhorn-Knopp against plain references: sign, limits, invariances."""

import math

import pytest
import torch

from training.methods import Plan, byol, dino, simclr
from training.methods.parts import regularisers, targets
from training.methods.parts.regularisers import SpreadSettings

pytestmark = pytest.mark.full
LOSSES = {"koleo": regularisers.koleo, "kde": lambda x: regularisers.kde(x, concentration=5.0)}


def rows(n=9, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_koleo_is_the_mean_log_distance_to_the_nearest():
    x = [v / v.norm() for v in rows()]
    plain = -sum(
        math.log(min(float((a - b).norm()) for j, b in enumerate(x) if j != i))
        for i, a in enumerate(x)
    ) / len(x)
    assert float(regularisers.koleo(rows())) == pytest.approx(plain, rel=1e-5)


def test_kde_is_the_mean_log_density_of_the_others():
    x = [v / v.norm() for v in rows()]
    density = [
        sum(math.exp(5 * (float(a @ b) - 1)) for j, b in enumerate(x) if j != i) / (len(x) - 1)
        for i, a in enumerate(x)
    ]
    assert float(LOSSES["kde"](rows())) == pytest.approx(
        sum(map(math.log, density)) / len(x), rel=1e-5
    )


@pytest.mark.parametrize("name", LOSSES)
def test_descent_spreads_the_rows(name):
    """The sign: a few steps down make the least distance of a tight cluster larger."""
    x = (torch.ones(6, 3) + 0.05 * rows(6, 3).float()).requires_grad_()
    before = _least_distance(x)
    for _ in range(60):
        (gradient,) = torch.autograd.grad(LOSSES[name](x), x)
        x = (x - 0.05 * gradient).detach().requires_grad_()
    assert _least_distance(x) > 2 * before


def _least_distance(x):
    unit = torch.nn.functional.normalize(x.detach(), dim=1)
    return float(torch.pdist(unit).min())


@pytest.mark.parametrize("name", LOSSES)
def test_rotation_scale_and_order_change_nothing(name):
    x, loss = rows(), LOSSES[name]
    turn = torch.linalg.qr(rows(4, 4, seed=3)).Q
    for other in (x @ turn, 7 * x, x * torch.arange(1, 10).view(-1, 1), x.flip(0)):
        assert float(loss(other)) == pytest.approx(float(loss(x)), rel=1e-5)


def test_limits():
    same, apart = torch.ones(5, 8), torch.eye(8)
    assert float(LOSSES["kde"](same)) == pytest.approx(0, abs=1e-6)
    assert float(LOSSES["kde"](apart)) == pytest.approx(-5, rel=1e-5)
    assert float(regularisers.koleo(apart)) == pytest.approx(-math.log(math.sqrt(2)), rel=1e-5)
    assert float(regularisers.koleo(same)) == pytest.approx(math.log(1e8), rel=1e-3)
    for x in (same, apart):
        y = x.clone().requires_grad_()
        LOSSES["kde"](y).backward()
        assert y.grad.isfinite().all()


def test_crops_of_a_tile_do_not_repel_each_other():
    x = rows().float()
    settings = SpreadSettings(name="kde")
    assert float(regularisers.spread(settings, (x, x))) == pytest.approx(
        float(LOSSES["kde"](x)), rel=1e-5
    )
    assert float(regularisers.spread(settings, (x, x))) < float(LOSSES["kde"](torch.cat([x, x])))


def test_sinkhorn_balances_rows_and_columns():
    q = targets.sinkhorn(3 * rows(12, 6).float(), temperature=0.5, iterations=200)
    assert torch.allclose(q.sum(1), torch.ones(12), atol=1e-5)
    assert torch.allclose(q.sum(0), torch.full((6,), 2.0), atol=1e-3)


def test_sinkhorn_is_the_plain_alternation_and_ignores_an_offset():
    logits = rows(5, 3).float()
    q = torch.exp(logits / 0.5)
    for _ in range(3):
        for dim in (0, 1):
            q = q / q.sum(dim, keepdim=True)
    assert torch.allclose(targets.sinkhorn(logits, temperature=0.5, iterations=3), q, atol=1e-6)
    assert torch.allclose(
        targets.sinkhorn(logits + 1000, temperature=0.5, iterations=3), q, atol=1e-4
    )


def test_sinkhorn_splits_a_preference_of_all_rows():
    logits = torch.tensor([[1.0, 0.9], [1.0, 0.2], [1.0, 0.8], [1.0, 0.1]])
    q = targets.sinkhorn(logits, temperature=0.05, iterations=50)
    assert q.argmax(1).tolist() == [1, 0, 1, 0]


def test_centring_is_a_softmax_about_a_moving_mean():
    centring, logits = targets.Centring(3, 0.9).train(), rows(4, 3).float()
    assert torch.allclose(centring(logits, 0.5), torch.softmax(logits / 0.5, 1), atol=1e-6)
    assert torch.allclose(centring.center, 0.1 * logits.mean(0, keepdim=True), atol=1e-6)
    kept = centring.center.clone()
    assert torch.allclose(
        centring.eval()(logits, 0.5), torch.softmax((logits - kept) / 0.5, 1), atol=1e-6
    )
    assert torch.equal(centring.center, kept)


def test_a_constant_preference_is_centred_away():
    centring = targets.Centring(3, 0.5).train()
    for _ in range(30):
        found = centring(torch.tensor([[0.0, 5.0, 0.0]]).expand(4, 3), 0.5)
    assert torch.allclose(found, torch.full((4, 3), 1 / 3), atol=1e-3)


def plan(batch, tiles, steps):
    half = (0.5, 0.5, 0.5)
    return Plan(torch.nn.Identity, 8, steps, batch, tiles, half, half, torch.Generator())


def test_sizes_follow_batch_corpus_and_length(caplog):
    small, large = (
        dino.SIZING.sizes(plan(*run)) for run in ((64, 3000, 300), (1024, 10**7, 10**6))
    )
    assert (small.hidden, small.out, small.prototypes, small.momentum) == (
        1024,
        128,
        512,
        pytest.approx(1 - 10 / 300),
    )
    assert (large.hidden, large.out, large.prototypes, large.momentum) == (2048, 256, 8192, 0.996)
    assert (small.teacher_temperature, large.teacher_temperature) == ((0.04, 0.04), (0.04, 0.07))
    with caplog.at_level("INFO"):
        simclr.SIZING.announce(plan(8, 5000, 10), {"out": 128})
    assert "simclr for batch 8, 5000 tiles, 10 steps: out 128" in caplog.text
    assert "data.batch is 8: simclr learns little below 32. What helps" in caplog.text
    caplog.clear()
    byol.SIZING.announce(plan(64, 5000, 10), {})
    assert not [r for r in caplog.records if r.levelname == "WARNING"]

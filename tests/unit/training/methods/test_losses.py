"""NT-Xent and DINO's loss against plain references; teacher and student share no weights."""

import math

import pytest
import torch
from torch import nn

from training.methods import Plan, dino, simclr
from training.methods.parts import sizing
from training.methods.parts.multicrop import forward_by_size

pytestmark = pytest.mark.full


def rows(n=6, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_nt_xent(z1, z2, temperature):
    z = [v / v.norm() for v in [*z1, *z2]]
    n, total = len(z1), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[partner]) / temperature) / others)
    return total / (2 * n)


def test_nt_xent_equals_equation_1():
    z1, z2 = rows(seed=1), rows(seed=2)
    assert float(simclr.nt_xent(z1, z2, temperature=0.3)) == pytest.approx(
        plain_nt_xent(z1, z2, 0.3), rel=1e-5
    )


def test_nt_xent_is_invariant_to_swaps_rotations_and_scales():
    z1, z2 = rows(seed=1), rows(seed=2)
    turn = torch.linalg.qr(rows(5, 5, seed=3)).Q
    loss = simclr.nt_xent(z1, z2, temperature=0.2)
    for a, b in ((z2, z1), (z1 @ turn, z2 @ turn), (3 * z1, z2)):
        assert float(simclr.nt_xent(a, b, temperature=0.2)) == pytest.approx(
            float(loss.detach()), rel=1e-5
        )


def test_nt_xent_limits():
    same = torch.ones(8, 4)
    assert float(simclr.nt_xent(same, same, temperature=0.5)) == pytest.approx(
        math.log(15), rel=1e-5
    )
    apart = torch.eye(8)
    assert float(simclr.nt_xent(apart, apart, temperature=0.05)) < 1e-6


def test_dino_loss_equals_a_double_loop():
    student = tuple(rows(4, 7, seed=s) for s in range(3))
    targets = tuple(torch.softmax(rows(4, 7, seed=10 + t), 1) for t in range(2))
    values = [
        -sum(float(targets[t][i] @ torch.log_softmax(student[s][i] / 0.1, 0)) for i in range(4)) / 4
        for t in range(2)
        for s in range(3)
        if s != t
    ]
    assert float(dino.dino_loss(student, targets, temperature=0.1)) == pytest.approx(
        sum(values) / len(values), rel=1e-4
    )


def test_dino_loss_of_uniform_sides_is_log_k():
    flat = torch.zeros(3, 16)
    assert float(
        dino.dino_loss((flat, flat), (torch.softmax(flat, 1),) * 2, temperature=0.1)
    ) == pytest.approx(math.log(16), rel=1e-5)


def plan(generator=None):
    def backbone():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    return Plan(backbone, 8, 100, 8, 1000, (0.5,) * 3, (0.5,) * 3, generator or torch.Generator())


@pytest.fixture
def method():
    return dino.build(
        dino.Settings(hidden=16, bottleneck=8, prototypes=32, momentum=0.9), plan()
    ).train()


def views(n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 3, 32, 32, generator=g) for _ in range(2)] + [
        torch.randn(8, 3, 16, 16, generator=g) for _ in range(n - 2)
    ]


def test_the_teacher_starts_as_a_copy_of_the_student(method):
    student, teacher = method.student.state_dict(), method.teacher.state_dict()
    assert all(torch.equal(student[k], teacher[k]) for k in student)
    assert not {v.data_ptr() for v in student.values()} & {v.data_ptr() for v in teacher.values()}
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_the_teacher_follows_the_student_by_its_momentum(method):
    before = method.teacher[1].last.weight.clone()
    with torch.no_grad():
        method.student[1].last.weight.add_(1.0)
    method.after_step(0)
    moved = method.teacher[1].last.weight - before
    assert torch.allclose(moved, torch.full_like(moved, 0.1), atol=1e-6)


def test_the_student_alone_has_gradients_and_the_centre_moves(method):
    loss, logs = method.loss(views(), step=50)
    loss.backward()
    assert all(p.grad is not None for p in method.student.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert method.balance.center.abs().sum() > 0
    assert 0 <= logs["teacher_entropy"] <= 1
    assert 0 <= logs["mean_entropy"] <= 1 + 1e-5


def test_the_last_layer_is_frozen_at_the_start_of_a_run(method):
    method.loss(views(), step=0)[0].backward()
    assert method.student[1].last.weight.grad.abs().max() == 0
    assert method.student[1].mlp[0].weight.grad.abs().max() > 0


def test_crops_of_equal_size_are_one_pass_in_their_order(method):
    method.eval()
    made = views()
    together = forward_by_size(method.student, made)
    apart = torch.cat([method.student(v) for v in made])
    assert torch.allclose(together, apart, atol=1e-5)


def test_prototypes_and_momentum_follow_batch_corpus_and_length():
    assert sizing.prototypes_for(64, 2781) == 512
    assert sizing.prototypes_for(1024, 10**7) == 8192
    assert sizing.prototypes_for(64, 100) == 64
    assert sizing.momentum_for(100) == 0.9
    assert sizing.momentum_for(10**6) == 0.996


def test_simclr_exports_the_average_not_the_last_weights():
    method = simclr.build(simclr.Settings(average=0.5), plan()).train()
    method.after_step(0)  # the first update takes the weights as they are
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1.0)
    method.after_step(1)
    ours, last = method.encoder()[0].weight, method.backbone[0].weight
    assert torch.allclose(last - ours, torch.full_like(ours, 0.5), atol=1e-6)

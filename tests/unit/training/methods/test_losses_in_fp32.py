"""Under bf16 autocast the gradient of each loss is that of float64 on the same features."""

import pytest
import torch
from small_methods import SMALL, small_method, small_views
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from training import methods
from training.methods import byol, dino, distill, simclr
from training.methods.parts import ibot, places, regularisers, targets
from training.methods.parts import patch_contrast as patches

pytestmark = pytest.mark.full
N, D, K = 48, 32, 40
PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "linear", "einsum", "__matmul__")


def rows(seed, n=N, d=D):
    """Rows near each other, as an encoder's are early in a run, rounded to bf16."""
    g = torch.Generator().manual_seed(seed)
    return (1 + 0.3 * torch.randn(n, d, generator=g)).bfloat16().float()


def fixed(seed, like, n=N, d=D):
    return rows(seed, n, d).to(like.dtype)


def softmax(seed, like):
    return torch.softmax(3 * fixed(seed, like, d=K), 1)


def masked(x):
    mask = (torch.arange(4 * 16) % 4 != 3).view(4, 4, 4)
    where = mask.flatten().nonzero()[:, 0]
    return ibot.patch_loss(x, softmax(1, x)[:, :D], mask, where, temperature=0.1)


def head(x):
    return (dino.cosines(x, fixed(1, x, n=K)) / 0.04).log_softmax(1)[:, :3].sum()


def contrast(similarity):
    def loss(x):
        square = x.view(N, 2, 4, 4).repeat(1, 2, 1, 1)[:, :3] / 4
        found = [patches.Patches(square[a::4], square[a + 1 :: 4]) for a in (0, 2)]
        s, rng = patches.similarity_named(similarity, None), torch.Generator().manual_seed(0)
        return patches.contrast_loss(found, s, 4, patches.Sampling(anchors=6), rng)

    return loss


def dense(first, second):
    near = (torch.arange(8)[:, None] - torch.arange(8)).abs() < 3
    valid = torch.tensor([True] * 5 + [False])[:, None].expand(6, 8)
    return places.matched(first, second, near.expand(6, 8, 8), valid, temperature=0.1)[0]


LOSSES = {
    "nt_xent": lambda x: simclr.nt_xent(x, fixed(1, x), temperature=0.1),
    "nt_xent_to": lambda x: simclr.nt_xent_to(x, fixed(1, x), temperature=0.1),
    "contrast": lambda x: simclr.contrast(x.chunk(3), large=2, temperature=0.1)[0],
    "byol_loss": lambda x: byol.byol_loss(x, fixed(1, x)),
    "cosines": head,
    "dino_loss": lambda x: dino.dino_loss(
        (x, fixed(1, x)), (softmax(2, x)[:, :D], softmax(3, x)[:, :D]), temperature=0.1
    ),
    "patch_loss": masked,
    "koleo": regularisers.koleo,
    "kde": lambda x: regularisers.kde(x, concentration=5.0),
    "spread": lambda x: regularisers.spread(regularisers.SpreadSettings(), x.chunk(2)),
    "unexplained": lambda x: distill.unexplained(x, fixed(1, x), fixed(2, x)[0].abs()),
    "dense contrast": lambda x: dense(x.view(6, 8, D), fixed(1, x).view(6, 8, D)),
    **{f"patch contrast, {name}": contrast(name) for name in patches.SIMILARITIES},
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_float64(name):
    features = rows(0)
    wide, mixed = features.double().requires_grad_(), features.clone().requires_grad_()
    LOSSES[name](wide).backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](mixed)
    loss.backward()
    assert loss.dtype == torch.float32
    assert float((mixed.grad - wide.grad).norm() / wide.grad.norm()) < 1e-4


@pytest.mark.parametrize("balance", [targets.Sinkhorn(), targets.Centring(D, 0.9)])
def test_targets_are_those_of_float64(balance):
    logits = (rows(0) / 10).bfloat16()
    wide = torch.softmax(logits.double() / 0.04, 1)
    if isinstance(balance, targets.Sinkhorn):
        wide = targets.sinkhorn(logits.double(), temperature=0.04, iterations=3)
    with torch.autocast("cpu", torch.bfloat16):
        found = balance.train()(logits, 0.04)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), wide, rtol=1e-4, atol=1e-9)


class ProductsOutsideModules(TorchFunctionMode):
    """Records matrix products that autocast would round and that no module's forward does."""

    def __init__(self):
        super().__init__()
        self.depth, self.found, self.seen = 0, [], 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in PRODUCTS and self.depth == 0:
            self.seen += 1
            if torch.is_autocast_enabled("cpu"):
                self.found.append(name)
        return func(*args, **(kwargs or {}))

    def count(self, by):
        def hook(module, *_):
            self.depth += by

        return hook


@pytest.mark.parametrize("name", SMALL)
def test_no_product_of_a_loss_is_under_autocast(name):
    method, record = small_method(SMALL[name]), ProductsOutsideModules()
    handles = [
        hooks.register_module_forward_pre_hook(record.count(1)),
        hooks.register_module_forward_hook(record.count(-1)),
    ]
    try:
        with torch.autocast("cpu", torch.bfloat16), record:
            loss, _ = method.loss(small_views(method), 50)
    finally:
        for handle in handles:
            handle.remove()
    assert record.found == []
    assert loss.dtype == torch.float32
    assert record.seen or name in ("byol", "distill", "dino")  # whose losses have no products


def test_every_method_is_tested():
    assert {settings.name for settings in SMALL.values()} == {
        m.name for m in methods.pkgutil.iter_modules(methods.__path__) if not m.ispkg
    }

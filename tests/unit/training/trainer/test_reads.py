"""Between a batch and the optimiser's step, a run reads one value from the device."""

import pytest
import torch
from small_runs import METHODS, settings, write_tiles
from torch.utils._python_dispatch import TorchDispatchMode

from training import pretrain
from training.trainer.optimizer import clip
from training.trainer.signals import StopRequest

pytestmark = pytest.mark.full
# What makes the host wait for a GPU: values read, and sizes that depend on values.
READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero")


class Reads(TorchDispatchMode):
    """Counts the calls that read from the device."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype is torch.bool for i in args[1])
        if name in READS or by_mask:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


@pytest.mark.parametrize("method", METHODS)
def test_a_step_reads_one_value_before_the_optimizer(tiles, tmp_path, monkeypatch, method):
    cfg, reads, seen = settings(tiles, tmp_path / "run", method), Reads(), []
    tolist = torch.Tensor.tolist

    def counted(x):  # on a CPU it calls no operator
        reads.names.append("tolist")
        return tolist(x)

    with pretrain.opened(cfg, StopRequest()) as run:
        step, batch, views = next(run.batches())
        monkeypatch.setattr(torch.Tensor, "tolist", counted)
        run.optimizer.step = lambda: seen.extend(reads.names)
        with reads:
            pretrain._step(run, cfg, step, batch, views)
    assert seen == ["tolist"]  # of the flags that all processes agree on


@pytest.mark.parametrize("size", [1.0, 100.0, float("inf"), float("nan")])
def test_clipping_leaves_gradients_whose_norm_is_not_finite(size):
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]]) * size
    before = layer.weight.grad.clone()
    norm = clip([layer.weight], 10.0)
    assert torch.allclose(norm, before.norm(), equal_nan=True)
    expected = before * 10 / (before.norm() + 1e-6) if size == 100 else before
    assert torch.allclose(layer.weight.grad, expected, equal_nan=True)

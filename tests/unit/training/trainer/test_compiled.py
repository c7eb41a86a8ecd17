"""Blocks under torch.compile: one graph for all of a kind, the same results."""

import pytest
import torch

from pathencoder import compat
from training import augment
from training.trainer import parallel

# torch._dynamo asks non-leaf tensors for their gradient, and torch warns of it
pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore:The .grad attribute")]


def vit(**args):
    torch.manual_seed(0)
    sizes = {
        "img_size": 32,
        "depth": 12,
        "embed_dim": 32,
        "num_heads": 2,
        "dynamic_img_size": True,
        "num_classes": 0,
    }
    return compat.import_timm().create_model(
        "vit_tiny_patch16_224", pretrained=False, **sizes, **args
    )


def test_blocks_share_graphs_whatever_their_stochastic_depth():
    network, graphs = vit(drop_path_rate=0.2), []
    rates = [getattr(b.drop_path1, "drop_prob", 0.0) for b in network.blocks]
    names = list(network.state_dict())
    assert (
        parallel.compile_blocks(
            network, backend=lambda graph, _: graphs.append(graph) or graph.forward
        )
        == 12
    )
    for px in (32, 48):
        network.train()(torch.randn(4, 3, px, px)).sum().backward()
    assert len(set(rates)) == 12
    assert len(graphs) <= 4  # two crop sizes; the first block, whose rate is 0, and the others
    assert list(network.state_dict()) == names


def test_compiled_blocks_compute_the_same_in_eval_mode():
    network, x = vit(drop_path_rate=0.2).eval(), torch.randn(2, 3, 32, 32)
    before = network(x)
    parallel.compile_blocks(network, backend="eager")
    assert torch.allclose(network(x), before, atol=1e-6)


def test_stochastic_depth_drops_whole_entries_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = parallel.DropPath(0.25)
    out = drop(torch.ones(4000, 3, 2))
    assert sorted(out.flatten().unique().tolist()) == pytest.approx([0, 4 / 3])
    assert (out.flatten(1).std(1) == 0).all()
    assert float(out.mean()) == pytest.approx(1, abs=0.04)
    assert drop.eval()(out) is out


def test_stain_maps_by_sums_are_those_by_products():
    torch.manual_seed(0)
    offset, matrix, density = torch.randn(5, 3, 1), torch.randn(5, 3, 3), torch.rand(5, 3, 70)
    assert torch.allclose(
        augment.mapped_by_sums(offset, matrix, density),
        torch.baddbmm(offset, matrix, density),
        atol=1e-6,
    )

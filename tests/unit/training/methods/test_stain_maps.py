"""Stain densities as a dense task: targets are those of the package, maps learn them."""

import numpy as np
import pytest
import torch
from small_methods import picture_tiles, rng, small_method

from pathencoder.errors import ConfigError
from pathencoder.stain import HED, separate
from training.methods import simclr
from training.methods.parts.pixel_targets import unexplained
from training.methods.parts.stain_maps import stain_amounts

pytestmark = pytest.mark.full
CNN = "test_efficientnet"


def settings(stages=("blocks.2",), **changes):
    task = {"stain_maps": {"stages": stages}} if stages else {}
    return simclr.Settings(crop={"px": 48, "area": (0.5, 1)}, hidden=16, out=8, **task, **changes)


def test_amounts_are_those_of_the_package():
    tiles = picture_tiles(3).tiles
    expected = separate(tiles.permute(0, 2, 3, 1).numpy(), HED)
    found = stain_amounts(tiles.float() / 255).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_is_the_prediction_of_the_mean_and_zero_the_perfect_one():
    amounts = torch.randn(8, 3, 64, 64, generator=rng(0)) * torch.tensor([1.0, 2, 3])[:, None, None]
    pooled = torch.nn.functional.avg_pool2d(amounts, 8)
    away = pooled - pooled.mean((0, 2, 3), keepdim=True)
    perfect = away / away.square().mean((0, 2, 3), keepdim=True).sqrt()
    mean = torch.zeros_like(pooled)
    assert float(unexplained(perfect, amounts)) < 1e-4
    assert float(unexplained(mean, amounts)) == pytest.approx(1, abs=1e-3)
    amounts[:, 1] *= 1e-3  # hardly there: what lies below the floor counts less
    assert float(unexplained(mean, amounts)) == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("architecture", [CNN, "test_vit"])
def test_maps_learn_where_the_stains_lie(architecture):
    method = small_method(settings(("blocks.1",)), architecture)
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-2)
    tiles, shares = picture_tiles(24), []
    for step in range(20):
        loss, logs = method.loss(method.views(tiles), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.after_step(step)
        shares.append(float(logs["stain_maps"]))
    assert shares[0] < 0.2
    assert np.mean(shares[-3:]) > 0.5


def test_the_head_is_not_exported_and_the_views_are_those_without_the_task():
    plain, dense = (small_method(settings(stages), CNN) for stages in ((), ("blocks.2",)))
    assert dense.encoder().state_dict().keys() == plain.encoder().state_dict().keys()
    assert any(name.startswith("stains.") for name in dense.state_dict())
    without, made = plain.views(picture_tiles(4)), dense.views(picture_tiles(4))
    assert (len(without), len(made)) == (2, 4)
    for one, other in zip(without, made, strict=False):
        assert torch.equal(one, other)


def test_stain_is_learnt_of_the_crop_before_its_colours_change():
    grey = {"grey": 1.0, "hed_classes": ["he"], "brightness": 0.0, "blur": 0.0}
    method, tiles = small_method(settings(colour=grey), CNN), picture_tiles(4)
    tiles.stains.zero_()  # H&E, which alone is made grey
    _, _, first, _ = method.views(tiles)
    assert float((first[:, 0] - first[:, 2]).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("stages", "words"),
    [(["blocks.77"], "has no blocks.77; it has .*blocks.1"), (["classifier"], "is no map")],
)
def test_stages_that_are_not_there(stages, words):
    with pytest.raises(ConfigError, match=f"stain_maps.stages: .*{words}"):
        small_method(settings(stages), CNN)

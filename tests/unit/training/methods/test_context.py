"""Context prediction: places around the smaller crop, and maps that learn to predict them."""

import math

import pytest
import torch
from small_methods import picture_tiles, places_learnt, rng, small_method

from pathencoder.errors import ConfigError
from training import augment
from training.augment import CropSettings
from training.methods import simclr
from training.methods.parts.context import surroundings
from training.methods.parts.places import PLACES

pytestmark = pytest.mark.full
CNN = "test_efficientnet"
WHOLE = torch.eye(2, 3)
CORNER = torch.tensor([[0.5, 0, -0.5], [0, 0.5, -0.5]])  # the quarter at the top left


def settings(stages=("blocks.1",), **changes):
    task = {"context": {"stages": stages}} if stages else {}
    return simclr.Settings(crop={"px": 48, "area": (0.1, 1)}, hidden=16, out=8, **task, **changes)


def test_places_around_a_quarter_of_the_tile():
    for pair in ((WHOLE, CORNER), (CORNER, WHOLE)):
        around = surroundings(*(x[None] for x in pair))
        assert bool(around.first_inside) == (pair[0] is CORNER)
        assert float(around.ratio) == 1
        outside = around.outside.view(4, 4)
        assert not outside[:2, :2].any()
        assert outside.sum() == 12
        # the middle of the tile is the quarter's lower right corner
        assert torch.allclose(around.seen, 2 * around.places + 1)


def test_a_place_is_the_same_one_of_the_tile_seen_from_both_crops():
    crop, g = CropSettings(px=32, area=(0.1, 1.0)), rng(1)
    first, second = (augment.crop_places(60, crop, g) for _ in range(2))
    around = surroundings(first, second)
    inner, outer = around.ordered(first, second)
    assert (augment.half_sides(inner).prod(1) <= augment.half_sides(outer).prod(1)).all()
    of_inner, of_outer = (
        torch.einsum("nij,npj->npi", x[:, :, :2], where) + x[:, None, :, 2]
        for x, where in ((inner, around.seen), (outer, around.places))
    )
    assert torch.allclose(of_inner, of_outer, atol=1e-5)
    assert torch.equal(around.outside, (around.seen.abs() > 1).any(2))
    assert 0.2 < around.outside.float().mean() < 0.95


def test_crops_of_equal_places_have_no_surroundings_and_give_no_nan():
    method = small_method(settings(), CNN)
    width = method.context.heads[0][0].in_features
    maps = {"blocks.1": torch.randn(8, width, 12, 12, generator=rng(0)).requires_grad_()}
    loss, share = method.context.loss(maps, [WHOLE.expand(4, 2, 3)] * 2)
    loss.backward()
    assert (float(loss.detach()), float(share)) == (0, 0)
    assert float(maps["blocks.1"].grad.abs().max()) == 0


def test_only_what_the_smaller_crop_lacks_is_read_of_the_larger_one():
    method = small_method(settings(), CNN)
    width = method.context.heads[0][0].in_features
    maps = torch.randn(4, width, 8, 8, generator=rng(0)).requires_grad_()
    loss, _ = method.context.loss(
        {"blocks.1": maps}, [WHOLE.expand(2, 2, 3), CORNER.expand(2, 2, 3)]
    )
    loss.backward()
    larger, smaller = maps.grad.abs().sum(1).chunk(2)
    assert float(larger[:, :3, :3].max()) == 0
    assert float(larger[:, 5:, 5:].min()) > 0
    assert float(smaller.min()) > 0


def test_the_loss_of_equal_maps_is_that_of_chance():
    method = small_method(settings(), CNN)
    for part in (*method.context.predictors, *method.context.heads):
        torch.nn.init.zeros_(part[-1].weight)
        torch.nn.init.ones_(part[-1].bias)
    views = method.views(picture_tiles(6))
    _, maps = method.tasks.forward(method.backbone, method.backbone, views[:2], 2)
    chance = method.settings.context.chance_loss(6)
    assert chance == math.log(6 * PLACES)
    assert float(method.context.loss(maps, views[2:])[0].detach()) == pytest.approx(chance)


@pytest.mark.parametrize("architecture", [CNN, "test_vit"])
def test_maps_learn_what_lies_around_and_the_gradient_reaches_the_backbone(architecture):
    method = small_method(settings(), architecture)
    shares = places_learnt(method, method.context, method.views(picture_tiles(16)), 40)
    assert shares[-1] > 0.15
    assert shares[-1] > 3 * shares[0]


def test_stages_that_are_not_there():
    with pytest.raises(ConfigError, match=r"context.stages: .*has no blocks.77"):
        small_method(settings(["blocks.77"]), CNN)

"""Dense contrast: places that two crops share are found in both, and maps learn to agree there."""

import math

import pytest
import torch
from small_methods import picture_tiles, places_learnt, rng, small_method

from pathencoder.errors import ConfigError
from training import augment
from training.augment import CropSettings
from training.methods import simclr
from training.methods.parts.dense_contrast import in_both
from training.methods.parts.places import PLACES, matched, read

pytestmark = pytest.mark.full
CNN = "test_efficientnet"
WHOLE = {"area": (1.0, 1.0), "aspect": (1.0, 1.0)}


def settings(stages=("blocks.1",), **changes):
    task = {"dense_contrast": {"stages": stages}} if stages else {}
    return simclr.Settings(crop={"px": 48, "area": (0.5, 1)}, hidden=16, out=8, **task, **changes)


def coordinates(count, side=64):
    """Tiles whose first two channels are x and y of a pixel, in -1..1 from border to border."""
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    one = torch.stack([line.expand(side, side), line[:, None].expand(side, side)])
    return augment.Source(
        one.expand(count, 2, side, side),
        torch.nn.functional.avg_pool2d(one, 2).expand(count, 2, -1, -1),
    )


def disjoint(count):
    """Places of two crops of each tile: its left and its right quarter."""
    left = torch.tensor([[0.25, 0, -0.75], [0, 0.25, 0]]).expand(count, 2, 3)
    return left, left + torch.tensor([0, 0, 1.5]) * torch.tensor([[1.0], [0.0]])


def test_identical_crops_share_all_their_places():
    places = augment.crop_places(6, CropSettings(px=32), rng(0))
    same = in_both(places, places)
    assert same.there.all()
    assert torch.equal(same.first, same.second)
    steps = torch.tensor([-0.75, -0.25, 0.25, 0.75])
    for axis in range(2):
        assert torch.allclose(same.first[..., axis].sort(1).values, steps.repeat_interleave(4))


@pytest.mark.parametrize("shape", [WHOLE, {"area": (0.3, 0.9), "field": (0.2, 1.0)}])
def test_flipped_and_turned_crops_are_read_at_the_same_place_of_the_tile(shape):
    """The maps are pixel coordinates, so what is read says where in the tile it lies."""
    crop, g = CropSettings(px=32, **shape), rng(1)
    within = augment.fields(40, crop, g)
    first, second = (augment.crop_places(40, crop, g, within) for _ in range(2))
    backbone = torch.nn.AvgPool2d(2)
    maps = [backbone(augment.cut(coordinates(40), x, crop.px)) for x in (first, second)]
    same = in_both(first, second)
    signs = {tuple(x) for x in (first[:, :, :2].sign().flatten(1)).long().tolist()}
    assert len(signs) == 8  # every flip and turn
    for map_, where in zip(maps, (same.first, same.second), strict=True):
        inside = same.there[:, None] & (where.abs() <= 1 - 1 / map_.shape[-1]).all(2)
        assert inside.float().mean() > 0.8
        found = read(map_, where)
        assert torch.allclose(found[inside], same.where[inside], atol=0.02)


def test_places_of_a_tile_are_as_far_apart_as_the_larger_crop_says():
    whole = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    half = torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]])
    apart = in_both(whole, half).positions_apart(8)  # places every quarter of 4 positions
    assert apart[0, 0].view(4, 4)[0].tolist() == pytest.approx([0, 1, 2, 3])
    assert torch.equal(apart, apart.transpose(1, 2))


def test_the_loss_of_equal_projections_is_that_of_chance():
    z = torch.ones(5, PLACES, 8)
    near = torch.eye(PLACES).bool().expand(5, PLACES, PLACES).clone()
    valid = torch.ones(5, PLACES).bool()
    chance = settings().dense_contrast.chance_loss(5)
    assert chance == math.log(5 * PLACES)
    assert float(matched(z, z, near, valid, temperature=0.2)[0]) == pytest.approx(chance)
    near[:, :4, :4] = True
    assert float(matched(z, z, near, valid, temperature=0.2)[0]) == pytest.approx(chance)


def test_near_places_of_a_tile_and_tiles_without_overlap_are_no_negatives():
    g = rng(0)
    z = [torch.randn(3, PLACES, 8, generator=g) for _ in range(2)]
    near = torch.ones(3, PLACES, PLACES).bool()
    valid = torch.tensor([True, False, True])[:, None].expand(3, PLACES)
    loss, _ = matched(*z, near, valid, temperature=0.2)
    other = [x.clone() for x in z]
    other[1][1] *= -1
    assert float(matched(*other, near, valid, temperature=0.2)[0]) == float(loss)
    # alone and with all of its places near, a tile has no negative
    alone = matched(*(x[:1] for x in z), near[:1], valid[:1], temperature=0.2)[0]
    assert float(alone) == pytest.approx(math.log(PLACES))
    far = torch.zeros_like(near)
    assert float(matched(*z, far, valid, temperature=0.2)[0]) > float(loss)


def test_crops_without_overlap_contribute_nothing_and_give_no_nan():
    method = small_method(settings(), CNN)
    width = method.dense.heads[0][0].in_features
    maps = {"blocks.1": torch.randn(8, width, 12, 12, generator=rng(0)).requires_grad_()}
    loss, share = method.dense.loss(maps, disjoint(4))
    loss.backward()
    assert (float(loss.detach()), float(share)) == (0, 0)
    assert float(maps["blocks.1"].grad.abs().max()) == 0
    mixed = [torch.cat([x[:2], torch.tensor([[[1.0, 0, 0], [0, 1, 0]]] * 2)]) for x in disjoint(4)]
    maps = {"blocks.1": maps["blocks.1"].detach().requires_grad_()}
    loss, _ = method.dense.loss(maps, mixed)
    loss.backward()
    by_tile = maps["blocks.1"].grad.abs().flatten(1).sum(1).view(2, 4)
    assert (by_tile[:, :2] == 0).all()
    assert (by_tile[:, 2:] > 0).all()


@pytest.mark.parametrize("architecture", [CNN, "test_vit"])
def test_maps_learn_to_agree_and_the_gradient_reaches_the_backbone(architecture):
    method = small_method(settings(), architecture)
    shares = places_learnt(method, method.dense, method.views(picture_tiles(16)), 25)
    assert shares[-1] > 2 * shares[0]


def test_its_weighted_loss_is_added_and_its_figure_logged():
    tiles, weighted = picture_tiles(8), {"stages": ["blocks.1"], "weight": 0.5}
    made = [small_method(settings(s), CNN) for s in ((), ("blocks.1",))]
    half = small_method(settings((), dense_contrast=weighted), CNN)
    plain, full, less = (float(m.loss(m.views(tiles), 0)[0].detach()) for m in (*made, half))
    assert full - plain == pytest.approx(2 * (less - plain), rel=1e-4)
    assert 0 <= float(made[1].loss(made[1].views(tiles), 0)[1]["dense_contrast"]) <= 1
    assert full < made[1].settings.chance_loss(8)


def test_the_head_is_not_exported_and_the_crops_are_those_without_the_task():
    plain, dense = (small_method(settings(s), CNN) for s in ((), ("blocks.1",)))
    assert dense.encoder().state_dict().keys() == plain.encoder().state_dict().keys()
    own = dense.state_dict().keys() - plain.state_dict().keys()
    assert own == {f"dense.heads.0.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}
    without, made = plain.views(picture_tiles(4)), dense.views(picture_tiles(4))
    assert [tuple(v.shape) for v in made[2:]] == [(4, 2, 3)] * 2
    for one, other in zip(without, made[:2], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("stages", "words"),
    [(["blocks.77"], "has no blocks.77; it has .*blocks.1"), (["classifier"], "is no map")],
)
def test_stages_that_are_not_there(stages, words):
    with pytest.raises(ConfigError, match=f"dense_contrast.stages: .*{words}"):
        small_method(settings(stages), CNN)

"""Augmentation: what it changes, what it leaves, and that it follows from its generator."""

import pytest
import torch

from training import augment
from training.augment import ColourSettings, CropSettings
from training.data.tiles import STAIN_CLASSES

pytestmark = pytest.mark.full
HE, IHC = STAIN_CLASSES.index("he"), STAIN_CLASSES.index("ihc")
STILL = ColourSettings(he_scale=0, he_shift=0, od_scale=0, od_shift=0, brightness=0, grey=0, blur=0)


def tiles(n=4, side=64, seed=0):
    return torch.randint(
        1, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_whole_tile_crops_are_the_eight_rotations_and_reflections():
    crop = CropSettings(px=64, area=(1.0, 1.0), aspect=(1.0, 1.0))
    source = tiles(40, seed=1)
    seen = set()
    for tile, view in zip(source, augment.crops(source, crop, rng()), strict=True):
        known = [torch.rot90(t, k, (1, 2)) for t in (tile, tile.flip(2)) for k in range(4)]
        near = [float((view - k.float() / 255).abs().max()) for k in known]
        assert min(near) < 1e-4
        seen.add(near.index(min(near)))
    assert len(seen) == 8


def test_crops_stay_inside_the_tile():
    source = torch.full((16, 3, 64, 64), 128, dtype=torch.uint8)
    view = augment.crops(source, CropSettings(px=32, area=(0.1, 0.5)), rng())
    assert view.shape == (16, 3, 32, 32)
    assert torch.allclose(view, torch.full_like(view, 128 / 255), atol=1e-5)


def test_a_shrinking_crop_is_not_aliased():
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    view = augment.crops(stripes, CropSettings(px=32, area=(1.0, 1.0), aspect=(1.0, 1.0)), rng())
    assert torch.allclose(view, torch.full_like(view, 0.5), atol=0.01)


def test_views_follow_from_the_generator_alone():
    crop, colour, stains = CropSettings(px=32), ColourSettings(), torch.full((4,), HE)
    a, b, c = (
        augment.colours(augment.crops(tiles(), crop, g), stains, colour, g)
        for g in (rng(3), rng(3), rng(4))
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("stain", [HE, IHC])
def test_no_jitter_changes_nothing(stain):
    views = tiles().float() / 255
    out = augment.colours(views.clone(), torch.full((4,), stain), STILL, rng())
    assert torch.allclose(out, views, atol=2e-5)


def test_he_moves_along_its_stains_and_other_stains_by_channel():
    views = (tiles(2).float() / 255).clamp(0.3, 0.9)
    settings = STILL.model_copy(update={"he_shift": 0.05, "od_shift": 0.02})
    out = augment.jitter_stain(views.clone(), torch.tensor([True, False]), settings, rng(1))
    moved = (views.log() - out.log()).flatten(2)
    assert float(moved.std(2).max()) < 1e-3  # a shift of optical density, the same in every pixel
    amounts = moved.mean(2)[0] @ augment._OF_HED
    expected = torch.randn(2, 2, 3, generator=rng(1))[1] * torch.tensor([[0.05], [0.02]])
    assert torch.allclose(amounts, expected[0], atol=1e-3)
    assert torch.allclose(moved.mean(2)[1], expected[1], atol=1e-3)


def test_only_he_is_ever_made_grey():
    views = tiles().float() / 255
    always = STILL.model_copy(update={"grey": 1.0})
    grey = augment.colours(views.clone(), torch.full((4,), HE), always, rng())
    kept = augment.colours(views.clone(), torch.full((4,), IHC), always, rng())
    assert torch.allclose(grey[:, 0], grey[:, 2])
    assert torch.allclose(kept, views, atol=2e-5)


def test_crops_of_one_draw_share_a_field_and_stay_in_it():
    """The value of a pixel is its position, so crops show which part of the tile they come from."""
    ramp = torch.arange(64, dtype=torch.uint8).mul(3)
    tile = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.expand(64, 64)])
    source = tile.expand(12, 3, 64, 64).contiguous()
    settings, g = CropSettings(px=16, field=(0.1, 0.2), area=(0.5, 1.0)), rng(2)
    within = augment.fields(12, settings, g)
    views = [augment.crops(source, settings, g, within) * 255 / 3 / 64 * 2 - 1 for _ in range(2)]
    assert (within.side.square() >= 0.1).all()
    assert (within.side.square() <= 0.2).all()
    for view in views:
        for channel, centre in ((0, within.x), (1, within.y)):
            away = (view[:, channel].flatten(1) - centre[:, None]).abs().amax(1)
            assert (away <= within.side + 0.05).all()


def test_the_whole_tile_is_no_field():
    g = rng()
    before = g.get_state()
    assert augment.fields(4, CropSettings(), g) is None
    assert torch.equal(g.get_state(), before)


def test_hed_classes_choose_the_jitter():
    source = torch.rand(8, 3, 16, 16, generator=rng(3))
    stains = torch.full((8,), IHC)
    per_channel = STILL.model_copy(update={"he_scale": 0.3})
    assert torch.allclose(
        augment.colours(source.clone(), stains, per_channel, rng()), source, atol=0.005
    )
    as_he = per_channel.model_copy(update={"hed_classes": ("he", "ihc")})
    assert not torch.allclose(
        augment.colours(source.clone(), stains, as_he, rng()), source, atol=0.01
    )

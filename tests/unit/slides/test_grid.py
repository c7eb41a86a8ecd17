"""The grid of tiles: positions, selection, and that a tile equals a cut of a resampled slide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_slides import MemorySlide, section

from pathencoder.errors import ConfigError, SlideError
from pathencoder.slides.grid import Grid, plan_grid, read_tile
from pathencoder.slides.reader import best_level
from pathencoder.slides.tissue import TissueMask

FULL = TissueMask(np.ones((10, 10), bool), (0, 0), (1000.0, 1000.0))


def plan(tissue=FULL, bounds=(0, 0, 10_000, 10_000), **changes):
    return plan_grid(
        tissue,
        bounds,
        **{"mpp": 0.25, "target_mpp": 0.5, "tile_px": 224, "min_tissue": 0.25, **changes},
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 1.0), st.floats(0.25, 2.0), st.integers(0, 100))
def test_positions_are_exact_to_half_a_pixel_along_the_whole_slide(mpp, target, overlap):
    grid = plan(mpp=mpp, target_mpp=target, overlap_px=overlap, min_tissue=0)
    xs = np.unique(grid.coords[:, 0])
    assert np.abs(xs - np.arange(len(xs)) * (224 - overlap) * target / mpp).max() <= 0.5 + 1e-6
    assert grid.side == pytest.approx(224 * target / mpp)


def test_tiles_cover_the_bounds_and_start_at_them():
    tissue = TissueMask(np.ones((10, 10), bool), (500, 300), (100.0, 100.0))
    grid = plan(tissue, (500, 300, 1000, 1000), min_tissue=0)
    assert grid.coords.min(axis=0).tolist() == [500, 300]
    assert (grid.coords.max(axis=0) + grid.side >= [1500, 1300]).all()


def test_only_tiles_with_enough_tissue_are_kept_row_by_row():
    mask = np.zeros((100, 100), bool)
    mask[:50, :50] = True
    tissue = TissueMask(mask, (0, 0), (100.0, 100.0))
    grid = plan(tissue, target_mpp=0.25, tile_px=1000)
    assert len(grid.coords) == 25
    assert (grid.coords < 5000).all()
    assert grid.coords.tolist() == sorted(grid.coords.tolist(), key=lambda at: (at[1], at[0]))


def test_no_tissue_no_tiles_even_at_share_zero():
    grid = plan(TissueMask(np.zeros((10, 10), bool), (0, 0), (1000.0, 1000.0)), min_tissue=0)
    assert grid.coords.shape == (0, 2)


def test_tiles_with_much_pen_are_left_out_and_counted():
    pen = np.zeros((10, 10), bool)
    pen[0, :2] = True
    tissue = TissueMask(~pen, (0, 0), (100.0, 100.0), dropped={"pen": pen})
    grid = plan(tissue, (0, 0, 1000, 1000), mpp=1.0, target_mpp=1.0, tile_px=250)
    assert len(grid.coords) == 15
    assert grid.notes == ("tiles left out for more than 15 % pen: 1",)
    assert len(plan(tissue, (0, 0, 1000, 1000), mpp=1.0, target_mpp=1.0, tile_px=1000).coords) == 1


@pytest.mark.parametrize("overlap", [-1, 224, 300])
def test_an_overlap_without_a_step_is_refused(overlap):
    with pytest.raises(ConfigError, match="overlap"):
        plan(overlap_px=overlap)


@pytest.mark.parametrize(
    ("wanted", "level"),
    [(0.5, 0), (1.0, 0), (1.9, 0), (4.0, 1), (3.99, 1), (15.0, 1), (16.1, 2), (100, 2)],
)
def test_the_coarsest_level_that_is_fine_enough(wanted, level):
    assert best_level((1.0, 4.0001, 16.002), wanted) == level


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([0.5, 0.7, 1.0, 1.3, 2.0]), st.integers(20, 700), st.integers(20, 500))
def test_a_tile_equals_the_cut_of_a_resampled_slide(ratio, x, y):
    """The reference is Pillow's resize of the whole slide, cut at the same place."""
    slide = MemorySlide(section(1200, 1000, ((0, 0, 1200, 1000),)))
    side = 64 * ratio
    tile = read_tile(
        slide, Grid(np.zeros((0, 2), np.int64), side, side, 64, 0.5, 0.5 * ratio), x, y
    )
    reach = 8 * ratio  # more of the slide than the filter sees: whole target pixels on each side
    whole = Image.fromarray(slide.pixels).resize(
        (80, 80),
        Image.Resampling.BICUBIC,
        box=(x - reach, y - reach, x + side + reach, y + side + reach),
    )
    # Pillow rounds twice
    assert np.abs(tile.astype(int) - np.asarray(whole)[8:72, 8:72]).max() <= 2


def test_a_tile_at_the_slides_own_scale_is_not_resampled():
    slide = MemorySlide(section(400, 400))
    tile = read_tile(slide, Grid(np.zeros((0, 2), np.int64), 224.0, 224.0, 224, 0.5, 0.5), 30, 40)
    assert (tile == slide.pixels[40:264, 30:254]).all()


def test_a_coarse_level_is_read_instead_of_shrinking_level_0():
    slide = MemorySlide(section(2048, 2048), downsamples=(1.0, 4.0))
    grid = Grid(np.zeros((0, 2), np.int64), 256.0, 256.0, 64, 0.25, 1.0)
    tile = read_tile(slide, grid, 512, 512)
    assert tile.shape == (64, 64, 3)
    assert np.abs(tile.astype(int) - slide.levels[1][128:192, 128:192]).mean() < 2


def test_beyond_the_edge_is_white():
    slide = MemorySlide(section(400, 400, ((0, 0, 400, 400),)))
    tile = read_tile(slide, Grid(np.zeros((0, 2), np.int64), 200.0, 200.0, 100, 0.5, 1.0), 300, 300)
    assert (tile[60:, 60:] == 255).all()
    assert tile[:40, :40].mean() < 220


def test_damage_beside_a_tile_does_not_cost_it():
    slide = MemorySlide(section(800, 800), broken=((0, 0, 400, 800),))
    grid = Grid(np.zeros((0, 2), np.int64), 200.0, 200.0, 100, 0.5, 1.0)
    assert read_tile(slide, grid, 400, 100).shape == (100, 100, 3)
    with pytest.raises(SlideError):
        read_tile(slide, grid, 399, 100)

"""The picture of tissue and tiles: what is drawn where, its size, and that it is written whole."""

import numpy as np
import pytest
from PIL import Image
from small_slides import MemorySlide, section

from pathencoder.errors import StoreError
from pathencoder.slides import overlay
from pathencoder.slides.grid import plan_grid
from pathencoder.slides.overlay import draw_overlay, write_overlay
from pathencoder.slides.tissue import TissueMask, find_tissue

MPP = 8.0


def seen(image, tile_px=40):
    slide = MemorySlide(image)
    found = find_tissue(slide, MPP)
    return found, plan_grid(found, slide.bounds, mpp=MPP, target_mpp=MPP, tile_px=tile_px)


def near(picture, box, colour, reach=60):
    """Share of pixels near a colour in a box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = box
    part = np.asarray(picture.convert("RGB")).astype(int)[y0:y1, x0:x1]
    return (np.abs(part - np.array(colour)).max(axis=2) < reach).mean()


def test_tissue_is_outlined_tiles_are_drawn_and_pen_is_tinted():
    image = section(500, 400, ((100, 80, 300, 280),))
    image[20:40, 50:450] = (20, 150, 120)  # green pen
    found, grid = seen(image)
    picture = draw_overlay(found, grid, title="a slide")
    assert picture.width == 1000
    assert picture.height > 800  # the legend is below
    assert near(picture, (190, 300, 210, 320), overlay._TISSUE) > 0.05
    assert near(picture, (20, 300, 150, 500), overlay._TISSUE) == 0
    # the corner of four tiles
    assert near(picture, (235, 235, 245, 245), (20, 40, 190), 110) > 0.05
    assert (
        near(picture, (150, 45, 800, 75), ((20 + 255) // 2, (150 + 140) // 2, 120 // 2), 20) > 0.9
    )
    assert near(picture, (0, 800, 1000, picture.height), (255, 140, 0), 20) > 0.0005  # its legend


@pytest.mark.parametrize(("width", "drawn"), [(60, 1000), (1300, 1300), (2400, 1600)])
def test_the_size_of_the_picture(width, drawn):
    found, grid = seen(section(width, width // 2, ((10, 5, width // 2, width // 4),)))
    assert draw_overlay(found, grid, title="").width == drawn


def test_nothing_to_draw_is_drawn_too():
    found, grid = seen(section(300, 200, ()))
    assert draw_overlay(found, grid, title="no tissue").width == 1000
    bare = TissueMask(np.zeros((20, 30), bool), (0, 0), (10.0, 10.0), ("a note",))
    assert (
        draw_overlay(
            bare, plan_grid(bare, (0, 0, 300, 200), mpp=1, target_mpp=1, tile_px=50), title=""
        ).width
        == 1000
    )


def test_many_small_tiles_are_a_tint():
    found, grid = seen(section(500, 400, ((100, 80, 300, 280),)), tile_px=2)
    assert len(grid.coords) > 5000
    picture = draw_overlay(found, grid, title="")
    assert (
        np.asarray(picture)[300, 400].astype(int)[2] > np.asarray(picture)[300, 400].astype(int)[1]
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_file_is_whole_small_and_replaces_an_older_one(tmp_path, suffix):
    found, grid = seen(section(500, 400, ((100, 80, 300, 280),)))
    file = tmp_path / f"slide{suffix}"
    file.write_bytes(b"older")
    assert write_overlay(found, grid, file, title="a slide") == file
    with Image.open(file) as picture:
        assert picture.size[0] == 1000
    assert file.stat().st_size < 1_500_000
    assert [f.name for f in tmp_path.iterdir()] == [file.name]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    found, grid = seen(section(300, 200))
    with pytest.raises(StoreError, match="nowhere"):
        write_overlay(found, grid, tmp_path / "nowhere" / "a.jpg", title="")

"""Coordinates of tiles from files of TRIDENT and CLAM."""

import hashlib

import h5py
import numpy as np
import pytest

from pathencoder.errors import SlideError
from pathencoder.slides.coords_file import given_grid, read_coords
from pathencoder.slides.grid import plan_grid
from pathencoder.slides.tissue import TissueMask

BOUNDS = (0, 0, 4000, 3000)
PLACES = [[0, 0], [512, 0], [512, 512]]


def write(path, coords=PLACES, dtype=np.int64, **attributes):
    with h5py.File(path, "w") as file:
        file["coords"] = np.array(coords, dtype)
        file["coords"].attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({"patch_size": 256, "patch_size_level0": 512, "overlap": 0}, 512),
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}, 1024),
    ],
    ids=["TRIDENT", "CLAM", "CLAM, level 1"],
)
def test_sides(attributes, side, tmp_path):
    given = read_coords(write(tmp_path / "s.h5", **attributes))
    assert given.coords.tolist() == PLACES
    assert given.side == side
    grid = given_grid(given, BOUNDS, mpp=0.25, tile_px=128)
    assert grid.target_mpp == pytest.approx(side / 128 * 0.25)
    assert grid.stride == side


@pytest.mark.parametrize(
    ("exact", "side"), [(None, 224), (224.0, 224), (112 / 0.499, 112 / 0.499), (9, 224)]
)
@pytest.mark.parametrize(
    "attributes", [{"patch_size_level0": 224}, {"patch_size": 224, "patch_level": 0}]
)
def test_the_exact_side_of_own_files(exact, side, attributes, tmp_path):
    file = write(tmp_path / "s.h5", **attributes)
    if exact is not None:
        with h5py.File(file, "a") as opened:
            opened.attrs["tile_side_level0"] = exact
    given = read_coords(file)
    assert given.side == side
    # every digit counts; a whole number is written as one
    digest = hashlib.sha256(np.array(PLACES, "<i8").tobytes() + str(side).encode()).hexdigest()
    assert given.sha256 == digest


def test_overlap_and_repeated_tiles(tmp_path):
    file = write(
        tmp_path / "s.h5", [*PLACES, [0, 0]], patch_size=256, patch_size_level0=512, overlap=64
    )
    given = read_coords(file)
    assert given.coords.tolist() == PLACES
    assert "1 stand there twice" in given.note
    assert given_grid(given, BOUNDS, mpp=0.25, tile_px=128).stride == 384


@pytest.mark.parametrize(
    ("coords", "dtype", "attributes", "message"),
    [
        (PLACES, np.int64, {}, "patch_level"),
        (PLACES, np.int64, {"patch_size": 256, "patch_level": 2}, "downsample"),
        (PLACES, np.float32, {"patch_size_level0": 512}, "whole level-0 pixels"),
        ([1, 2, 3], np.int64, {"patch_size_level0": 512}, "whole level-0 pixels"),
        (PLACES, np.int64, {"patch_size_level0": 0}, "tiles of 0"),
    ],
)
def test_files_that_do_not_say_enough(coords, dtype, attributes, message, tmp_path):
    with pytest.raises(SlideError, match=message):
        read_coords(write(tmp_path / "s.h5", coords, dtype, **attributes))


def test_no_hdf5_and_no_coords(tmp_path):
    (tmp_path / "text.h5").write_text("no")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for name in ("text.h5", "empty.h5", "missing.h5"):
        with pytest.raises(SlideError, match="no HDF5 file with `coords`"):
            read_coords(tmp_path / name)


def test_coordinates_of_another_slide_are_refused(tmp_path):
    given = read_coords(write(tmp_path / "s.h5", [[9000, 0]], patch_size_level0=512))
    with pytest.raises(SlideError, match="outside the slide"):
        given_grid(given, BOUNDS, mpp=0.25, tile_px=128)


@pytest.mark.parametrize("corner", [[3999, 2999], [-511, -511], [4000, 0]])
def test_tiles_may_reach_beyond_the_edges(corner, tmp_path):
    given = read_coords(write(tmp_path / "s.h5", [corner], patch_size_level0=512))
    assert given_grid(given, BOUNDS, mpp=0.25, tile_px=128).coords.tolist() == [corner]


@pytest.mark.parametrize("corner", [[4001, 0], [0, 3001], [-513, 0], [0, -513]])
def test_tiles_beside_the_slide_are_refused(corner, tmp_path):
    given = read_coords(write(tmp_path / "s.h5", [[0, 0], corner], patch_size_level0=512))
    with pytest.raises(SlideError, match="1 of its 2 tiles lie outside"):
        given_grid(given, BOUNDS, mpp=0.25, tile_px=128)


@pytest.mark.parametrize("bounds", [(0, 0, 1100, 900), (130, 70, 1290, 1030)])
@pytest.mark.parametrize("target_mpp", [0.25, 0.37, 1.0])
def test_the_tiles_of_a_grid_are_those_of_its_coordinates(bounds, target_mpp, tmp_path):
    mask = TissueMask(np.ones((200, 200), np.bool_), bounds[:2], (8.0, 8.0))
    grid = plan_grid(mask, bounds, mpp=0.25, target_mpp=target_mpp, tile_px=64, min_tissue=0)
    file = write(tmp_path / "s.h5", grid.coords, patch_size_level0=round(grid.side))
    with h5py.File(file, "a") as opened:
        opened.attrs["tile_side_level0"] = grid.side
    again = given_grid(read_coords(file), bounds, mpp=0.25, tile_px=64)
    assert again.coords.tolist() == grid.coords.tolist()

"""Maps of a slide's tiles: lined up with the tissue, for every layout, with and without a slide."""

import dataclasses

import h5py
import numpy as np
import pytest
import small_maps
from every_layout import LAYOUTS
from small_maps import KINDS, TILE

from pathencoder.errors import ConfigError
from pathencoder.features import provenance
from pathencoder.pictures import ground, located, maps
from pathencoder.pictures.colours import GROUPS
from pathencoder.pictures.draw import drawn

BRIGHT = np.array((0, 255, 0), np.uint8)


@pytest.fixture
def make_slide(tmp_path, monkeypatch):
    def make(**options):
        made = small_maps.slide(tmp_path / "slide.svs", **options)
        monkeypatch.setattr(ground, "open_slide", lambda path: made)
        return made

    return make


@pytest.fixture
def slide(make_slide):
    return make_slide()


def laid(tmp_path, slide, **options):
    tiles = located.read_tiles(small_maps.feature_file(tmp_path, made_from=slide.path))
    return ground.ground_of(tiles, **options)


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("longest", [600, 333, 97])
@pytest.mark.parametrize("bounds", [(0, 0, 1200, 900), (60, 35, 1080, 815)])
@pytest.mark.parametrize("kind", ["pink", "brown"])
def test_a_map_lies_on_its_tissue_to_one_pixel(tmp_path, make_slide, longest, bounds, kind):
    slide = make_slide(kinds=[kind])
    slide.bounds = bounds
    tiles, under = laid(tmp_path, slide, longest=longest)
    _, kinds = small_maps.corners()
    chosen = kinds == list(KINDS).index(kind)
    assert max(under.image.shape[:2]) == min(longest, bounds[2])
    here = dataclasses.replace(tiles, corners=tiles.corners[chosen], rows=tiles.rows[chosen])
    painted = maps.paint(under, here, np.tile(BRIGHT, (chosen.sum(), 1)))
    green = (painted[..., 1] > 0) & (painted[..., 0] == 0)
    tissue = under.image[..., 1] < 200
    assert np.abs(box_of(green) - box_of(tissue)).max() <= 1
    assert green[1:-1, 1:-1].sum() > 0.9 * tissue.sum()


def test_neighbours_leave_no_gap_where_corners_were_rounded(tmp_path):
    side = 33.4
    steps = np.rint(np.arange(20) * side).astype(np.int64)
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    file = small_maps.feature_file(
        tmp_path, places=places, features=small_maps.rows(np.zeros(400, int)), side=side
    )
    tiles, under = ground.ground_of(located.read_tiles(file))
    painted = maps.paint(under, tiles, np.tile(BRIGHT, (400, 1)))
    green = painted[..., 0] == 0
    left, top, right, bottom = box_of(green)
    assert green[top:bottom, left:right].all()
    assert right - left == pytest.approx(20 * side / under.scale[0], abs=1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_tiles(tmp_path, layout):
    places, kinds = small_maps.corners()
    places = places * 4 // 5
    found = located.read_tiles(
        small_maps.feature_file(tmp_path, layout=layout, overlap_px=10, places=places)
    )
    assert found.corners.tolist() == places.tolist()
    assert np.allclose(found.rows, small_maps.rows(kinds), atol=1e-2)
    assert (found.side, found.step, found.mpp) == (100, pytest.approx(80), 0.5)
    assert (found.slide, found.unit, found.notes) == ("slide.svs", "px", ())


def foreign(path, coords, *, name="features", attributes=(), of_root=()):
    with h5py.File(path, "w") as file:
        file[name] = small_maps.rows(np.zeros(len(coords), int))
        file["coords"] = coords
        file["coords"].attrs.update(dict(attributes))
        file.attrs.update(dict(of_root))
    return path


def test_files_of_other_tools_are_read(tmp_path, slide):
    places, _ = small_maps.corners()
    trident = located.read_tiles(
        foreign(
            tmp_path / "t.h5",
            places,
            attributes={
                "patch_size": 50,
                "patch_size_level0": 100,
                "overlap": 0,
                "level0_magnification": 20,
                "level0_width": 1200,
                "level0_height": 900,
                "name": "slide",
            },
        )
    )
    assert (trident.side, trident.mpp, trident.size) == (100, 0.5, (1200, 900))
    clam = located.read_tiles(foreign(tmp_path / "c.h5", places))
    assert (clam.side, clam.mpp, clam.slide) == (100, None, "c")
    assert "the usual step" in clam.notes[0]
    stamp = located.read_tiles(
        foreign(
            tmp_path / "s.h5",
            (places * 0.5).astype(np.float32),
            name="feats",
            of_root={"tile_size_um": 50.0, "unit": "um"},
        )
    )
    for tiles in (trident, clam, stamp):
        placed, under = ground.ground_of(tiles, slide.path)
        assert (placed.corners.tolist(), placed.side) == (places.tolist(), 100)
        assert under.mpp == 0.5
    assert ground.ground_of(stamp)[1].slide is None  # drawn in micrometres, on white


def test_files_that_have_no_map_are_refused(tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["features"] = np.zeros((2, 3), np.float32)
        file["keys"] = ["a.png", "b.png"]
    with pytest.raises(ConfigError, match="no place on a slide"):
        located.read_tiles(tmp_path / "images.h5")
    with pytest.raises(ConfigError, match="how large its tiles are"):
        located.read_tiles(foreign(tmp_path / "one.h5", np.array([[5, 7]])))


def test_rows_that_are_no_numbers_are_left_out_and_said(tmp_path):
    features = small_maps.rows(small_maps.corners()[1])
    features[3, 5] = np.nan
    tiles = located.read_tiles(small_maps.feature_file(tmp_path, features=features))
    assert len(tiles.rows) == len(tiles.corners) == len(features) - 1
    assert tiles.notes == ("tiles left out because their features are not numbers: 1",)


def test_without_the_slide_the_map_is_white_and_says_why(tmp_path, slide):
    moved = located.read_tiles(small_maps.feature_file(tmp_path))
    _, under = ground.ground_of(moved)
    assert (under.image == 255).all()
    assert under.notes == ("the slide is not shown: slide.svs is no longer where it was encoded",)
    assert under.scale == (1.0, 1.0)
    changed = located.read_tiles(small_maps.feature_file(tmp_path, made_from=slide.path))
    slide.path.write_bytes(b"another slide")
    assert "its content differs" in ground.ground_of(changed)[1].notes[0]
    with pytest.raises(ConfigError, match="its content differs"):
        ground.ground_of(changed, slide.path)


@pytest.mark.parametrize(("tissue", "notes"), [("drawn areas", 1), (provenance.TISSUE, 0)])
def test_an_outline_of_other_tissue_than_the_tiles_is_said(tmp_path, slide, tissue, notes):
    file = small_maps.feature_file(tmp_path, made_from=slide.path, tissue=tissue)
    _, under = ground.ground_of(located.read_tiles(file))
    assert len(under.notes) == notes
    assert all("chosen by other rules: drawn areas" in note for note in under.notes)


def test_the_maps_show_what_is_there(tmp_path, slide):
    tiles, under = laid(tmp_path, slide)
    _, kinds = small_maps.corners()
    groups = maps.cluster_map(tiles, 3)
    for kind in range(3):
        assert len(np.unique(groups.colours[kinds == kind], axis=0)) == 1
    assert len(np.unique(groups.colours, axis=0)) == 3
    sizes = sorted((int((kinds == k).sum()) for k in range(3)), reverse=True)
    assert [int(text.split()[1]) for _, text in groups.legend] == sizes
    x0, y0 = (TILE * v for v in KINDS["brown"][1][:2])
    near = maps.similarity_map(tiles, tiles.at(x0 + 50, y0 + 50))
    assert near.chosen is not None
    assert near.colours[kinds == 2, 0].min() > near.colours[kinds != 2, 0].max()
    colours = maps.pca_map(tiles).colours.astype(int)
    means = np.array([colours[kinds == kind].mean(axis=0) for kind in range(3)])
    assert all(np.abs(means[a] - means[b]).max() > 80 for a, b in ((0, 1), (0, 2), (1, 2)))
    page = np.asarray(maps.draw_map(tiles, under, groups))
    assert page.shape[1] > 2 * under.image.shape[1]


def test_a_point_without_a_tile_is_refused_with_the_nearest(tmp_path):
    tiles = located.read_tiles(small_maps.feature_file(tmp_path))
    assert tiles.corners[tiles.at(199, 101)].tolist() == [100, 100]
    with pytest.raises(ConfigError, match=r"no tile .* at 10,10 .*; the nearest begins at 100,100"):
        tiles.at(10, 10)
    with pytest.raises(ConfigError, match="from 2 to 9"):
        maps.cluster_map(tiles, len(GROUPS) + 1)


def test_values_are_drawn_on_the_tiles_that_they_belong_to(tmp_path, slide):
    _, kinds = small_maps.corners()
    features = small_maps.rows(kinds)
    features[3, 5] = np.nan
    file = small_maps.feature_file(tmp_path, made_from=slide.path, features=features)
    values = np.where(kinds == 2, 5.0, 1.0)
    values[3] = np.nan  # of the row that is left out
    made = drawn(file, "values", None, 6, None, values=values, title="a score")
    assert len(made.painted.colours) == len(kinds) - 1
    yellow = made.painted.colours[:, 0] > 200
    assert yellow.tolist() == np.delete(kinds == 2, 3).tolist()
    assert (made.painted.title, made.painted.scale) == ("a score", (1.0, 5.0))
    values[3], values[4] = 0, np.inf
    for wrong in (values, values[:-1], "many", None):
        with pytest.raises(ConfigError, match="values"):
            drawn(file, "values", None, 6, None, values=wrong)
    with pytest.raises(ConfigError, match="belong together"):
        drawn(file, "pca", None, 6, None, values=values)


@pytest.mark.parametrize(
    ("coords", "attributes", "message"),
    [
        (lambda c: np.hstack([c, c]), {}, r"shape \[45, 4\] for 45"),
        (lambda c: np.where(c == c[0], np.nan, c), {}, "are not numbers"),
        (None, {"tile_side_level0": "unknown"}, "tile_side_level0 is 'unknown': a number"),
        (None, {"slide_mpp": "?"}, r"slide_mpp is '\?'"),
        (None, {"level0_width": -1}, "level0_width is -1"),
    ],
    ids=["four columns", "not a number", "side", "mpp", "width"],
)
def test_places_that_cannot_be_used_are_named(tmp_path, monkeypatch, coords, attributes, message):
    path = small_maps.feature_file(tmp_path)
    found = located.read_features(path)
    changed = dataclasses.replace(
        found,
        coords=coords(found.coords.astype(float)) if coords else found.coords,
        attributes={**found.attributes, **attributes},
    )
    monkeypatch.setattr(located, "read_features", lambda _: changed)
    with pytest.raises(ConfigError, match=rf"{path.name}.*{message}"):
        located.read_tiles(path)


def test_a_tile_of_a_file_in_micrometres_needs_the_slide(tmp_path):
    path = small_maps.feature_file(tmp_path)
    tiles = dataclasses.replace(located.read_tiles(path), unit="um")
    with pytest.raises(ConfigError, match=r"micrometres.* give it with --slide"):
        tiles.at(*tiles.corners[0])

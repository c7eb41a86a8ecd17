"""What a page holds: compact features, colours, pictures within a budget, provenance."""

import base64
import io
import json
import re

import numpy as np
import pytest
import small_maps
from PIL import Image

from pathencoder.errors import ConfigError
from pathencoder.explore.compact import NEAREST, PARTS, compact
from pathencoder.explore.data import Laid, page_data
from pathencoder.explore.gather import gather
from pathencoder.explore.write import write_page
from pathencoder.pictures import ground
from pathencoder.pictures.ground import ground_or_white
from pathencoder.pictures.located import read_tiles


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


def laid(file):
    return Laid(*ground_or_white(read_tiles(file), None))


def numbers(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def whole_cosines(rows):
    rows = rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows -= rows.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def test_compact_features_keep_the_similarity_and_say_how_well():
    random = np.random.default_rng(3)
    rows = (random.normal(size=(400, 30)) @ random.normal(size=(30, 200)) + 4).astype(np.float32)
    rows += 0.3 * random.normal(size=rows.shape).astype(np.float32)
    found = compact([rows[:150], rows[150:]])
    assert (found.rows.dtype, found.rows.shape) == (np.int8, (400, PARTS))
    small = found.rows / np.linalg.norm(found.rows.astype(float), axis=1, keepdims=True)
    page, whole = small @ small.T, whole_cosines(rows)
    assert np.abs(page - whole).max() < 0.05
    assert found.correlation == pytest.approx(
        np.corrcoef(page.ravel(), whole.ravel())[0, 1], abs=1e-3
    )
    for cosines in (page, whole):
        np.fill_diagonal(cosines, -2)
    near = [np.argsort(-cosines, axis=1)[:, :NEAREST] for cosines in (page, whole)]
    same = np.mean([len(set(a) & set(b)) / NEAREST for a, b in zip(*near, strict=True)])
    assert found.agreement == pytest.approx(same, abs=0.03)
    assert found.explained > 0.98


def test_what_is_lost_is_measured():
    rows = np.random.default_rng(0).normal(size=(2000, 600)).astype(np.float32)
    found = compact([rows])  # noise: 64 components of 600 hold little
    assert found.explained < 0.25
    assert found.correlation < 0.8
    assert found.agreement < 0.6


@pytest.mark.parametrize("count", [0, 1, 2, 13])
def test_few_tiles_have_no_figures(count):
    found = compact([np.random.default_rng(0).normal(size=(count, 9)).astype(np.float32)])
    assert len(found.rows) == count
    assert found.correlation is None
    assert np.isfinite(found.explained)


def test_the_arrays_of_a_page_are_those_of_the_slides(tmp_path, slide):
    files = [
        small_maps.feature_file(tmp_path, "a", made_from=slide.path),
        small_maps.feature_file(tmp_path, "b", layout="stamp"),
    ]
    data = page_data([laid(file) for file in files], title="both", max_bytes=5_000_000)
    places, _ = small_maps.corners()
    assert [(s["name"], s["first"], s["count"]) for s in data["slides"]] == [
        ("a.svs", 0, len(places)),
        ("b.svs", len(places), len(places)),
    ]
    for one in data["slides"]:
        assert np.array_equal(numbers(one["corners"], "<f4").reshape(-1, 2), places)
        assert (one["side"], one["step"], one["mpp"]) == (100, 100, 0.5)
    assert len(numbers(data["features"], "i1")) == 2 * len(places) * data["parts"]
    assert len(numbers(data["colours"], "u1")) == 2 * len(places) * 3
    first, second = data["slides"]
    with Image.open(io.BytesIO(base64.b64decode(first["image"]))) as picture:
        assert picture.size == (1200, 900)
    assert first["extent"] == [1200, 900]
    assert second["image"] is None
    assert "no longer where it was encoded" in second["notes"][0]


def test_the_outline_of_the_tissue_is_where_the_tissue_is(tmp_path, make_slide):
    slide = make_slide(kinds=["brown"])
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    one = page_data([laid(file)], title="", max_bytes=10**6)["slides"][0]
    points = numbers(one["outline"], "<i4").reshape(-1, 2)
    assert numbers(one["outlineStarts"], "<i4").tolist() == [0, len(points)]
    assert points[0].tolist() == points[-1].tolist()
    found = [*points.min(axis=0), *points.max(axis=0)]
    assert np.abs(np.array(found) - (200, 500, 800, 800)).max() <= 16  # a pixel of the mask


@pytest.mark.parametrize("most", [60_000, 200_000])
def test_pictures_are_made_smaller_to_fit_the_page(tmp_path, slide, most):
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    slide.levels[0] = np.random.default_rng(0).integers(0, 255, slide.pixels.shape, np.uint8)
    data = page_data([laid(file)], title="", max_bytes=most)
    out = tmp_path / "page.html"
    size = write_page(data, out)
    rest = len(json.dumps({**data, "slides": []}))
    assert out.stat().st_size == size
    assert size < most + 60_000  # the script and the style are not counted
    assert len(data["slides"][0]["image"]) > 0.3 * (most - rest)
    assert data["slides"][0]["extent"] == [1200, 900]


def test_a_page_holds_no_folders_and_no_markup_from_names(tmp_path):
    name = "</script><script>alert(1)</script>"
    file = small_maps.feature_file(tmp_path, "plain")
    tiles = laid(file)
    tiles.tiles.attributes["slide"] = name
    changed = Laid(tiles.tiles.__class__(**{**tiles.tiles.__dict__, "slide": name}), tiles.ground)
    out = tmp_path / "page.html"
    write_page(page_data([changed], title=name, max_bytes=10**6), out)
    page = out.read_text(encoding="utf-8")
    assert page.count("</script>") == 2
    assert data_of(page)["slides"][0]["name"] == name
    assert str(tmp_path) not in page
    assert "/data/" not in page
    assert not re.search(r"(src|href)=\"?https?:|@import|url\(|fetch\(|XMLHttp", page)


def test_the_provenance_is_on_the_page(tmp_path):
    data = page_data([laid(small_maps.feature_file(tmp_path))], title="", max_bytes=10**6)
    about = dict(data["about"])
    assert (about["Encoder"], about["Weights, sha256"]) == ("small", "12" * 32)
    of_slide = dict(data["slides"][0]["about"])
    assert of_slide["Noted when encoded"] == "a note"
    assert of_slide["Scale from"] == "by hand"
    assert of_slide["Feature file"] == "slide.h5"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "other"}, "encoder small and other"),
        ({"features": np.ones((45, 7), np.float32)}, "features of 96 and 7 numbers"),
        ({"recipe": {"views": 4}}, "views 1 and 4"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(tmp_path, changes, message):
    files = [
        small_maps.feature_file(tmp_path, "a"),
        small_maps.feature_file(tmp_path, "b", **changes),
    ]
    with pytest.raises(ConfigError, match=message):
        gather(files)


def test_a_bad_file_does_not_stop_the_others(tmp_path):
    good = small_maps.feature_file(tmp_path / "clam", "a", layout="clam")
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"no HDF5")
    found = gather([tmp_path / "clam", good, bad])
    assert [one.tiles.slide for one in found.slides] == ["a.svs"]
    assert [file for file, _ in found.failed] == [bad]
    with pytest.raises(ConfigError, match="nothing to show"):
        gather([bad])


def test_slides_are_found_in_a_folder_by_name_and_content(tmp_path, slide):
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    slide.path.rename(tmp_path / "moved.tmp")
    folder = tmp_path / "slides"
    for below in ("1", "2"):
        (folder / below).mkdir(parents=True)
    (folder / "1" / "slide.svs").write_bytes(b"another slide of this name")
    found = gather([file], folder).slides[0].ground
    assert found.slide is None
    assert "its content differs" in found.notes[0]
    (tmp_path / "moved.tmp").rename(folder / "2" / "slide.svs")
    slide.path = folder / "2" / "slide.svs"
    assert gather([file], folder).slides[0].ground.slide == slide.path
    other = small_maps.feature_file(tmp_path, "gone")
    assert gather([other], folder).slides[0].ground.notes == (
        f"the slide is not shown: gone.svs is not in {folder}",
    )
    with pytest.raises(ConfigError, match="not a folder of slides"):
        gather([other], tmp_path / "none")

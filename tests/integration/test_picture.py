"""`pathencoder picture`: what it writes and says, with and without the slide."""

import json

import numpy as np
import pytest
import small_maps
from every_layout import LAYOUTS
from PIL import Image

import pathencoder
from pathencoder.cli.main import run
from pathencoder.errors import ConfigError
from pathencoder.pictures import ground


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_of_every_layout(tmp_path, capsys, monkeypatch, layout):
    draw(tmp_path, capsys, monkeypatch, "pca", layout)


@pytest.mark.parametrize("kind", ["clusters", "similarity"])
def test_a_picture_of_every_kind(tmp_path, capsys, monkeypatch, kind):
    draw(tmp_path, capsys, monkeypatch, kind, "trident")


def draw(tmp_path, capsys, monkeypatch, kind, layout):
    monkeypatch.chdir(tmp_path)
    file = small_maps.feature_file(tmp_path, layout=layout)
    tile = ["--tile", "250,550"] if kind == "similarity" else []
    assert run(["picture", str(file), "--kind", kind, *tile]) == 0
    said = capsys.readouterr()
    assert "note: the slide is not shown: slide.svs is no longer where it was encoded" in said.err
    assert f"45 tiles: slide-{kind}.png" in said.out
    with Image.open(f"slide-{kind}.png") as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 3


def test_the_slide_is_drawn_beside_the_map(tmp_path, capsys, monkeypatch):
    slide = small_maps.slide(tmp_path / "slide.svs")
    monkeypatch.setattr(ground, "open_slide", lambda path: slide)
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    out = tmp_path / "new folder" / "map.jpg"
    line = ["picture", str(file), "--kind", "similarity", "--tile", "250,550", "--json"]
    assert run([*line, "--out", str(out)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "picture": str(out),
        "tiles": 45,
        "tile": [200, 500],
        "notes": [],
        "slide": str(slide.path),
    }
    with Image.open(out) as picture:
        assert picture.format == "JPEG"
        assert picture.width > 2 * 1200


def test_a_map_never_replaces_the_slide(tmp_path, capsys, monkeypatch):
    slide = small_maps.slide(tmp_path / "slide.png")
    monkeypatch.setattr(ground, "open_slide", lambda path: slide)
    before = slide.path.read_bytes()
    file = small_maps.feature_file(tmp_path / "features", made_from=slide.path)
    assert run(["picture", str(file), "--out", str(slide.path)]) == 2
    assert "a file of the slide: choose another --out" in capsys.readouterr().err
    assert slide.path.read_bytes() == before


def test_the_same_in_python(tmp_path):
    file = small_maps.feature_file(tmp_path)
    picture = pathencoder.draw_features(file, "clusters", clusters=3)
    assert (picture.mode, picture.width > 1000) == ("RGB", True)
    with pytest.raises(ConfigError, match="kind='umap': one of pca, clusters, similarity"):
        pathencoder.draw_features(file, "umap")


@pytest.mark.parametrize("tile", [5, "10,20", (float("nan"), 200), (1, 2, 3), (True, 2), ("1", 2)])
def test_a_tile_is_two_numbers(tmp_path, tile):
    file = small_maps.feature_file(tmp_path)
    with pytest.raises(ConfigError, match=r"tile=.*two numbers"):
        pathencoder.draw_features(file, "similarity", tile=tile)
    pathencoder.draw_features(file, "similarity", tile=np.array([250.0, 550.0]))


@pytest.mark.parametrize("clusters", ["4", 4.5, True, None, 1])
def test_clusters_are_a_whole_number(tmp_path, clusters):
    with pytest.raises(ConfigError, match=r"clusters.*from 2 to 9"):
        pathencoder.draw_features(small_maps.feature_file(tmp_path), "clusters", clusters=clusters)


def test_what_is_no_path_is_refused_and_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    small_maps.feature_file(tmp_path)
    with pytest.raises(ConfigError, match="features=NoneType: a path is needed"):
        pathencoder.draw_features(None)
    with pytest.raises(ConfigError, match="slide=int: a path is needed"):
        pathencoder.draw_features("~/slide.h5", slide=3)
    assert pathencoder.draw_features("~/slide.h5").mode == "RGB"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--kind", "similarity"], 2, "--kind similarity needs --tile X,Y"),
        (["--tile", "5,5"], 2, "is for --kind similarity, not for pca"),
        (["--kind", "similarity", "--tile", "5"], 2, "two whole numbers"),
        (["--kind", "similarity", "--tile", "5,5"], 2, "the nearest begins at 100,100"),
        (["--out", "map.gif"], 2, "ends in none of .png"),
        (["--slide", "gone.svs"], 1, "no such file"),
    ],
)
def test_wrong_use_says_what_to_do(tmp_path, capsys, monkeypatch, options, status, message):
    monkeypatch.chdir(tmp_path)
    file = small_maps.feature_file(tmp_path)
    assert run(["picture", str(file), *options]) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


def test_no_tiles_no_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty = {"places": np.zeros((0, 2), int), "features": np.zeros((0, 5), np.float32)}
    assert run(["picture", str(small_maps.feature_file(tmp_path, **empty))]) == 2
    assert "holds no tiles: there is nothing to draw" in capsys.readouterr().err

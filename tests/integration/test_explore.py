"""`pathencoder explore`: the page it writes and what it says."""

import json

import numpy as np
import pytest
import small_maps
from every_layout import LAYOUTS

import pathencoder
from pathencoder.cli.main import run
from pathencoder.errors import ConfigError


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_page_of_every_layout(tmp_path, capsys, layout):
    file = small_maps.feature_file(tmp_path, layout=layout)
    out = tmp_path / "new folder" / "page.html"
    assert run(["explore", str(file), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["slides"], said["tiles"]) == (["slide.svs"], 45)
    assert said["bytes"] == out.stat().st_size < 200_000
    assert said["correlation"] > 0.99
    assert "no longer where it was encoded" in said["notes"][0]


def test_the_same_in_python(tmp_path):
    file = small_maps.feature_file(tmp_path)
    page = pathencoder.write_explore_page(file, tmp_path / "page.html", title="a title")
    assert (page.slides, page.tiles, page.failed) == (["slide.svs"], 45, [])
    assert page.size == page.path.stat().st_size
    assert "<title>" in page.path.read_text(encoding="utf-8")
    small = pathencoder.write_explore_page([str(file)], str(tmp_path / "p.html"), max_mb=0.01)
    assert "its features alone" in small.notes[-1]
    for wrong in (0, "5", float("nan"), float("inf"), None):
        with pytest.raises(ConfigError, match="max_mb="):
            pathencoder.write_explore_page(file, tmp_path / "page.html", max_mb=wrong)


def test_a_page_never_replaces_a_feature_file(tmp_path):
    file, other = (small_maps.feature_file(tmp_path / name) for name in ("a", "b"))
    before = other.read_bytes()
    for given in (file, "missing.h5"):  # nothing is read
        with pytest.raises(ConfigError, match=r"slide\.h5' does not end in \.html"):
            pathencoder.write_explore_page(given, other)
    assert other.read_bytes() == before


def test_what_is_no_path_is_refused_and_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = small_maps.feature_file(tmp_path / "home")
    for wrong in (pathencoder.read_features(file), None, 3, [None]):
        with pytest.raises(ConfigError, match=r"features=.*: a path is needed"):
            pathencoder.write_explore_page(wrong, "page.html")
    with pytest.raises(ConfigError, match="out=NoneType: a path is needed"):
        pathencoder.write_explore_page(file, None)
    page = pathencoder.write_explore_page(["~/slide.h5"], "~/page.html")
    assert page.path == tmp_path / "home" / "page.html"
    assert page.path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


def test_files_that_cannot_be_read_are_listed_and_the_page_is_written(tmp_path, capsys):
    good = small_maps.feature_file(tmp_path)
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    line = ["explore", str(good), str(tmp_path / "bad.h5"), "--out", str(tmp_path / "page.html")]
    assert run(line) == 3
    said = capsys.readouterr()
    assert "failed: " in said.err
    assert "bad.h5" in said.err
    assert "1 slide, 45 tiles" in said.out
    assert (tmp_path / "page.html").exists()


def test_a_slide_without_tiles_has_a_page(tmp_path, capsys):
    empty = {"places": np.zeros((0, 2), int), "features": np.zeros((0, 5), np.float32)}
    file = small_maps.feature_file(tmp_path, **empty)
    assert run(["explore", str(file), "--out", str(tmp_path / "page.html")]) == 0
    assert "1 slide, 0 tiles" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--out", "page.txt"], 2, "does not end in .html"),
        (["--slides", "none"], 2, "not a folder of slides"),
        (["--max-mb", "0"], 2, "--max-mb"),
    ],
)
def test_wrong_use_says_what_to_do(tmp_path, capsys, monkeypatch, options, status, message):
    monkeypatch.chdir(tmp_path)
    assert run(["explore", str(small_maps.feature_file(tmp_path)), *options]) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))

"""Tissue masks against drawn outlines: what is scored, and how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pathencoder.errors import ConfigError
from training.evaluation import tissue
from training.evaluation.tissue_table import tissue as command

pytestmark = pytest.mark.full


def _feature(name: str, points: list[tuple[int, int]], **properties: float) -> dict[str, object]:
    kind = "LineString" if name == "Pen" else "Polygon"
    ring = [list(p) for p in points]
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": ring if name == "Pen" else [[*ring, ring[0]]]},
        "properties": {"classification": {"name": name}, **properties},
    }


def _square(x: int, y: int, side: int) -> list[tuple[int, int]]:
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


@pytest.fixture
def outlines(tmp_path: Path) -> Path:
    """A pink square on white glass, with a hole, ink on glass and an area that is not scored."""
    image = np.full((200, 200, 3), 245, np.uint8)
    image[40:120, 40:120] = (200, 120, 170)
    Image.fromarray(image).save(tmp_path / "made.png")
    folder = tmp_path / "outlines"
    folder.mkdir()
    features = [
        _feature("Tissue", _square(40, 40, 79)),
        _feature("Hole", _square(60, 60, 19)),
        _feature("Ignore", _square(40, 40, 9)),
        _feature("Pen", [(150, 20), (150, 180)], width=10),
    ]
    found = {"picture": "made.png", "size": [200, 200], "half": "kept", "stain": "he"}
    (folder / "made.geojson").write_text(json.dumps({**found, "features": features}))
    return folder / "made.geojson"


def test_drawn_masks(outlines: Path, tmp_path: Path) -> None:
    drawn = tissue.read_drawn(outlines, tmp_path)
    assert drawn.tissue.sum() == 80 * 80 - 20 * 20
    assert (~drawn.scored).sum() == 10 * 10
    assert drawn.pen[20:180, 150].all()
    assert not drawn.pen[:, :140].any()


def test_iou_leaves_out_what_is_not_scored(outlines: Path, tmp_path: Path) -> None:
    drawn = tissue.read_drawn(outlines, tmp_path)
    exact = drawn.tissue.copy()
    exact[40:50, 40:50] = False  # not scored
    assert tissue.iou(exact, drawn) == 1
    half = drawn.tissue.copy()
    half[80:] = False
    scored = 80 * 80 - 20 * 20 - 10 * 10
    assert tissue.iou(half, drawn) == pytest.approx((scored - 40 * 80) / scored)
    assert tissue.iou(np.zeros_like(half), drawn) == 0


@pytest.mark.parametrize("name", tissue.RECIPES)
def test_every_recipe_finds_a_plain_square(name: str, outlines: Path, tmp_path: Path) -> None:
    drawn = tissue.read_drawn(outlines, tmp_path)
    assert tissue.iou(tissue.RECIPES[name](drawn.image), drawn) > 0.85
    assert (
        not tissue.RECIPES[name](np.full((90, 90, 3), 245, np.uint8)).all() or name == "pathencoder"
    )


def test_a_missing_picture_is_named(outlines: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"made\.png.*missing"):
        tissue.read_drawn(outlines, tmp_path / "elsewhere")


def test_the_table(outlines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.tissue_table.OUTLINES", outlines.parent)
    out, pictures = tmp_path / "out.json", tmp_path / "pictures"
    arguments = ["--data", str(tmp_path), "--json", str(out), "--pictures", str(pictures)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    row = json.loads(out.read_text())["pictures"][0]
    assert row["iou"]["pathencoder"] > 0.85
    assert row["pen"]["pathencoder"] == 0  # nothing was painted there
    assert (pictures / "made.png").exists()


def test_outlines_of_the_package() -> None:
    found = [json.loads(p.read_text()) for p in sorted(tissue.OUTLINES.glob("*.geojson"))]
    assert len(found) >= 20
    assert {f["half"] for f in found} == {"choice", "kept"}
    for half in ("choice", "kept"):
        assert sum(f["half"] == half and f["stain"] == "ihc" for f in found) >= 4
    for f in found:
        width, height = f["size"]
        for feature in f["features"]:
            points = np.asarray(feature["geometry"]["coordinates"]).reshape(-1, 2)
            assert (points >= 0).all()
            assert (points <= (width, height)).all()

"""What can be known before the first step is said before it, all at once."""

import dataclasses

import numpy as np
import pytest
import yaml
from PIL import Image
from small_runs import settings, values, write_tiles

from pathencoder.errors import ConfigError
from training import from_config
from training.data.tiles import STAIN_CLASSES
from training.monitor.knn import label_rows
from training.pretrain import main
from training.trainer import checks, preflight

pytestmark = pytest.mark.full


@pytest.fixture
def tiles(tmp_path):
    (tmp_path / "tiles").mkdir()
    return write_tiles(tmp_path / "tiles")


def test_a_run_lists_everything_and_writes_nothing(tiles, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    asked = values(tiles, tmp_path / "file/run", "dino")
    asked["data"]["root"] = str(tmp_path / "nowhere")
    asked["start_from"] = str(tmp_path / "gone")
    asked["backbone"]["embedding"] = "stages:blocks.9"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(asked))
    before = sorted(tmp_path.rglob("*"))
    assert main([str(tmp_path / "r.yaml")]) == 1
    for part in ("nowhere' is not a folder", "gone' is neither", "blocks.9", "not a folder that"):
        assert part in caplog.text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_knn_set_that_is_not_there_is_said_once(tiles, tmp_path, caplog):
    cfg = settings(tiles, tmp_path / "run", knn_sets=[str(tmp_path / "gone")])
    checks.refuse(cfg)
    assert preflight.knn_sets_there(cfg) == ()
    assert caplog.text.count("gone") == 1


def test_a_knn_set_of_one_group_is_refused_at_the_start(tiles, tmp_path):
    lines = ["file,label,group", *(f"s0/{i}.png,{'ab'[i % 2]},p" for i in range(4))]
    (tiles / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="other groups"):
        label_rows(tiles)
    cfg = settings(tiles, tmp_path / "run", knn_sets=[str(tiles)])
    with pytest.raises(ConfigError, match="other groups"):
        checks.refuse(cfg)


@pytest.mark.parametrize(
    ("canvas", "words"),
    [(48, ""), (32, ""), (128, "24 have sides of 48 to 48 px and are enlarged to 128 px")],
)
def test_tiles_far_from_the_canvas_are_said_with_counts_and_sizes(
    tiles, tmp_path, caplog, canvas, words
):
    cfg = settings(tiles, tmp_path / "run")
    cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update={"canvas": canvas})})
    preflight.check(cfg, from_config.corpus_of(cfg))
    assert ("data.canvas" in caplog.text) == bool(words)
    assert words in caplog.text


def test_tiles_that_are_not_square_are_said(tmp_path, caplog):
    tile = np.zeros((48, 96, 3), np.uint8)
    for slide in ("s0", "s1"):
        (tmp_path / "tiles" / slide).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(tile[:, : 96 if i % 2 else 48]).save(
                tmp_path / "tiles" / slide / f"{i}.png"
            )
    cfg = settings(tmp_path / "tiles", tmp_path / "run")
    preflight.check(cfg, from_config.corpus_of(cfg))
    assert "of 8 tiles that were read, 4 are not square (sides as 1 to 2.00)" in caplog.text


def test_a_folder_without_a_table_may_be_of_one_stain(tiles, tmp_path):
    cfg = settings(tiles, tmp_path / "run")
    plain = from_config.corpus_of(cfg)
    he = from_config.with_stain(plain, "he")
    assert (plain.stain_counts(), he.stain_counts()) == ({"unknown": 24}, {"he": 24})
    assert set(he.stains.tolist()) == {STAIN_CLASSES.index("he")}
    assert list(he.contents.stains) == ["he"]
    assert he.contents.stains["he"] == plain.contents.stains["unknown"]
    # a stated class stays
    assert from_config.with_stain(he, "ihc") is he
    by_slide = dataclasses.replace(plain, tile_stains=None)
    assert from_config.with_stain(by_slide, "ihc").stain_counts() == {"ihc": 24}

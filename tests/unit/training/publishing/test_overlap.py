"""Images of a set that a run was trained on: equal, nearly equal, and by the name of a group."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage
from small_releases import with_manifest
from small_runs import settings

from pathencoder.errors import ConfigError
from training import config
from training.data.corpus import open_corpus
from training.publishing import overlap, sets_table

pytestmark = pytest.mark.full


def cloudy(seed, side=64):
    """A smooth picture with structure, as tissue has it at low magnification."""
    noise = np.random.default_rng(seed).normal(size=(side, side, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
    scaled = 127 + 60 * smooth / np.abs(smooth).max()
    return scaled.astype(np.uint8)


@pytest.fixture
def run(tmp_path):
    tiles = tmp_path / "tiles"
    for slide in range(3):
        (tiles / f"s{slide}").mkdir(parents=True)
        for i in range(4):
            Image.fromarray(cloudy(10 * slide + i)).save(tiles / f"s{slide}/{i}.png")
    (tmp_path / "run").mkdir()
    asked = config.dump(settings(tiles, tmp_path / "run"))
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(asked))
    return tmp_path / "run"


def write_set(folder, images):
    folder.mkdir()
    lines = ["file,label,group"]
    for number, (group, image) in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{number % 2},{group}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def count(run, table, out):
    done = CliRunner().invoke(overlap.main, [str(run), f"mine={table}", "--json", str(out)])
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text())["sets"]["mine"]


def test_equal_and_nearly_equal_images_are_counted(run, tmp_path):
    resized = np.asarray(Image.fromarray(cloudy(11)).resize((96, 96), Image.Resampling.BICUBIC))
    brighter = (cloudy(12) + 9).astype(np.uint8)
    others = [(f"p{i}", cloudy(77 + i)) for i in range(2)]
    images = [("s0", cloudy(3)), ("p", resized), ("p", brighter), *others]
    table = write_set(tmp_path / "set", images)
    found = count(run, table, tmp_path / "out.json")
    assert {key: found[key] for key in ("images", "equal", "near", "groups")} == {
        "images": 5, "equal": 1, "near": 2, "groups": 1,
    }  # fmt: skip
    assert found["examples"] == ["0.png", "1.png", "2.png"]


def test_other_images_and_empty_ones_are_not(run, tmp_path):
    blank = np.full((64, 64, 3), 240, np.uint8)
    shutil.copy(run.parent / "tiles/s0/0.png", tmp_path / "kept.png")
    Image.fromarray(blank).save(run.parent / "tiles/s0/0.png")
    other = np.full((64, 64, 3), 235, np.uint8)
    images = [(f"p{i}", cloudy(100 + i)) for i in range(20)]
    table = write_set(tmp_path / "set", [*images, ("p", other)])
    found = count(run, table, tmp_path / "out.json")
    assert (found["equal"], found["near"], found["groups"]) == (0, 0, 0)


def test_a_set_without_a_name_is_refused(run, tmp_path):
    done = CliRunner().invoke(overlap.main, [str(run), "labels.csv", "--json", str(tmp_path / "o")])
    assert (done.exit_code, "write NAME=LABELS.csv" in done.output) == (1, True)


def test_held_out_images_are_counted_apart(run, tmp_path):
    images = [("s0", cloudy(3)), ("s1", cloudy(12)), ("p1", cloudy(80)), ("p2", cloudy(81))]
    table = write_set(tmp_path / "set", images)
    lines = table.read_text().splitlines()
    parts = ("split", "train", "test", "train", "test")
    joined = [f"{line},{part}" for line, part in zip(lines, parts, strict=True)]
    table.write_text("\n".join(joined) + "\n")
    found = count(run, table, tmp_path / "out.json")
    assert (found["equal"], found["groups"]) == (2, 2)
    assert (found["held_out"], found["held_out_found"], found["held_out_groups"]) == (2, 1, 1)


def test_annotated_images_of_the_same_patient_of_tcga_are_found(tmp_path):
    table = tmp_path / "meta.csv"
    Image.fromarray(cloudy(3)).save(tmp_path / "a.png")
    rows = ["file,split,slide_id,note", "a.png,test,TCGA-18-5592,made up, with a comma"]
    table.write_text("\n".join(rows) + "\n")
    known = overlap.seen([lambda: cloudy(9)])
    same = overlap.overlap(known, {"TCGA-18-5592-01Z-00-DX1"}, table)
    assert (same.groups, same.held_out_groups, same.equal) == (1, 1, 0)
    assert overlap.overlap(known, {"TCGA-18-5593-01Z-00-DX1"}, table).groups == 0
    assert same.named_groups == 1
    table.write_text("file,split,slide_id\na.png,test,unknown\n")
    nameless = overlap.overlap(known, {"unknown"}, table)
    assert (nameless.groups, nameless.named_groups) == (0, 0)
    cell = sets_table.overlap_alone({"a": dataclasses.asdict(nameless)}, "command")
    assert "0 equal, 0 nearly, of 1; groups have no names. Held out: 0 of 1 |" in cell


@pytest.fixture
def bundled(run, tmp_path):
    """A run's settings and record, as those of a bundled encoder; tiles of two sources."""
    with_manifest(run.parent / "tiles")
    shown, weights = tmp_path / "model_cards/small", tmp_path / "pathencoder/weights/small"
    shown.mkdir(parents=True)
    weights.mkdir(parents=True)
    shutil.copy(run / "config.yaml", shown / "config-a.yaml")
    (weights / "metrics.json").write_text(json.dumps({"training": {"sources": [["osteo"]]}}))
    asked = config.load(run / "config.yaml")
    digest = open_corpus(asked.data.root, without=("kidney",)).digest
    (shown / "provenance.json").write_text(json.dumps({"corpus": {"digest": digest}}))
    return tmp_path


def test_the_tiles_of_a_bundled_encoder_are_those_of_its_card(bundled):
    """The corpus may have grown since: the tiles of its sources are left."""
    assert len(overlap.tiles_of("small", bundled)) == 8
    with pytest.raises(ConfigError, match="no bundled encoder: small"):
        overlap.tiles_of("large", bundled)


def test_tiles_that_are_no_longer_there_are_said(bundled):
    record = bundled / "model_cards/small/provenance.json"
    record.write_text(json.dumps({"corpus": {"digest": "0" * 64}}))
    with pytest.raises(ConfigError, match="which are not those that it was trained on"):
        overlap.tiles_of("small", bundled)

"""`evaluate probe --labels` on a small folder."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pathencoder.errors import ConfigError
from training import evaluate
from training.evaluation.encoders import open_subject
from training.evaluation.sets import own_set

pytestmark = pytest.mark.full


@pytest.fixture
def table(tmp_path):
    rows, rng = ["file;label;group"], np.random.default_rng(0)
    for i in range(24):
        noise = rng.integers(0, 40, (32, 32, 3)) + (170 if i % 2 else 20)
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png;{'bright' if i % 2 else 'dark'};p{i // 3}")
    (tmp_path / "my.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "my.csv"


def test_own_labels_are_probed_by_folds_of_groups(table, tmp_path):
    done = CliRunner().invoke(
        evaluate.main,
        f"probe default --labels {table} --seeds 1"
        f" --cache {tmp_path / 'cache'} --json {tmp_path / 'out.json'}".split(),
    )
    assert done.exit_code == 0, done.output
    assert "five folds by group" in done.output
    figures = json.loads((tmp_path / "out.json").read_text())["sets"]["my"]["default"]
    assert figures["linear"] == 1.0
    assert (figures["n"], figures["groups"]) == (24, 8)


def test_a_split_is_used_where_there_is_one(table):
    lines = table.read_text().splitlines()
    split = ["split", *("test" if i // 3 > 5 else "train" for i in range(24))]
    table.write_text("\n".join(f"{a};{b}" for a, b in zip(lines, split, strict=True)))
    assert own_set(table, choose=False).part == "test"
    assert len(own_set(table, choose=True).labels.files) == 18


def test_outcomes_are_kept_for_these_labels_and_images_alone(table):
    before = own_set(table, choose=False).stamp
    assert own_set(table, choose=False).stamp == before
    Image.new("RGB", (32, 32)).save(table.parent / "0.png")
    changed = own_set(table, choose=False).stamp
    assert changed != before
    table.write_text(table.read_text().replace("1.png;bright", "1.png;dark", 1))
    assert own_set(table, choose=False).stamp != changed


def test_outcomes_of_a_set_are_computed_again_when_its_labels_change(table, tmp_path):
    (subject,) = open_subject("default")

    def labels():
        given = own_set(table, choose=False)
        (found,) = evaluate.outcomes(subject, given, cache=tmp_path / "cache", seeds=1)
        return np.sort(found.y).tolist()

    before = labels()
    assert labels() == before
    table.write_text(table.read_text().replace("1.png;bright", "1.png;dark", 1))
    assert sum(labels()) != sum(before)


def test_a_set_of_two_groups_without_a_split_is_an_error_with_its_name(table, tmp_path):
    lines = table.read_text().splitlines()
    rows = [f"{line.rpartition(';')[0]};p{i // 12}" for i, line in enumerate(lines[1:])]
    table.write_text("\n".join([lines[0], *rows]))
    asked = f"probe default --labels {table} --seeds 1 --cache {tmp_path / 'cache'}"
    done = CliRunner().invoke(evaluate.main, asked.split())
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "my: the rows that are fitted on are all of one group" in done.output


def test_one_class_or_one_group_is_refused(table):
    text = table.read_text()
    table.write_text(text.replace("bright", "dark"))
    with pytest.raises(ConfigError, match="needs two classes"):
        own_set(table, choose=False)
    rows = [line.rpartition(";")[0] + ";p" for line in text.splitlines()[1:]]
    table.write_text("\n".join(["file;label;group", *rows]))
    with pytest.raises(ConfigError, match="all rows are of one group"):
        own_set(table, choose=False)

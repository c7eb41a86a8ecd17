"""OUT/summary.csv and summary.json: one row an input, over all runs into a folder."""

import csv
import json
from pathlib import Path

import pytest

from pathencoder.cli.own_files import without_own
from pathencoder.cli.summary_files import write_summaries
from pathencoder.errors import StoreError
from pathencoder.features.job import Outcome
from pathencoder.features.store import Failure
from pathencoder.pace import Pace


def done(name, encoder="small", **more):
    options = {"rows": 8, "new": 8, "seconds": 2.0, "reader": "OpenSlide 4", "mpp": 0.25, **more}
    return Outcome(Path(name), "done", Path(f"{name}.h5"), encoder=encoder, **options)


def listed(folder, *keys):
    with (folder / "summary.csv").open(newline="", encoding="utf-8") as stream:
        return [tuple(row[key] for key in keys) for row in csv.DictReader(stream)]


def test_a_row_says_how_an_input_ended(tmp_path):
    bad = [Failure("1,2", "damaged"), Failure("3,4", "damaged")]
    outcome = done("a.svs", failures=bad, notes=["enlarged", "pen"], pace=Pace(1.0, 3.0))
    assert write_summaries(tmp_path, [outcome]) == tmp_path / "summary.csv"
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == [
            {
                "name": "a.svs",
                "status": "done",
                "file": "a.svs.h5",
                "rows": "8",
                "failed": "2",
                "seconds": "2.0",
                "tiles_per_second": "4.0",
                "waited_for_reading": "0.25",
                "encoder": "small",
                "reader": "OpenSlide 4",
                "mpp": "0.25",
                "notes": "enlarged; pen",
                "input": "a.svs",
            }
        ]
    (row,) = json.loads((tmp_path / "summary.json").read_text())["inputs"]
    assert row["failures"][1] == {"part": "3,4", "error": "ImageError", "reason": "damaged"}


def test_runs_and_shards_are_merged(tmp_path):
    write_summaries(tmp_path, [done("a"), Outcome(Path("b"), "failed", encoder="small")])
    write_summaries(tmp_path, [done("c"), Outcome(Path("d"), "unreached", encoder="small")])
    write_summaries(tmp_path, [done("b"), Outcome(Path("a").absolute(), "unreached")])
    assert listed(tmp_path, "name", "status") == [
        ("a", "done"),
        ("b", "done"),
        ("c", "done"),
        ("d", "unreached"),
    ]


def test_a_file_that_is_done_before_keeps_the_row_of_its_making(tmp_path):
    before = Outcome(Path("a"), "before", Path("a.h5"), rows=8, encoder="small")
    write_summaries(tmp_path, [before])
    assert listed(tmp_path, "status") == [("before",)]
    write_summaries(tmp_path, [done("a")])
    write_summaries(tmp_path, [before])
    assert listed(tmp_path, "status", "seconds") == [("done", "2.0")]
    write_summaries(tmp_path, [Outcome(Path("a"), "failed", encoder="small")])
    assert listed(tmp_path, "status") == [("failed",)]


def test_each_encoder_has_its_row_until_the_whole_input_fails(tmp_path):
    write_summaries(tmp_path, [done("a", "x"), done("a", "y")])
    write_summaries(tmp_path, [Outcome(Path("a"), "failed", encoder="y")])
    assert listed(tmp_path, "encoder", "status") == [("x", "done"), ("y", "failed")]
    write_summaries(tmp_path, [Outcome(Path("a"), "failed")])
    assert listed(tmp_path, "encoder", "status") == [("", "failed")]


@pytest.mark.parametrize("name", ["summary.csv", "summary.json"])
def test_a_file_of_that_name_of_another_program_is_not_touched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match="is not changed"):
        write_summaries(tmp_path, [done("a")])
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]
    assert without_own(tmp_path.iterdir()) == [tmp_path / name]


def test_own_summaries_in_an_input_folder_are_not_reported(tmp_path):
    write_summaries(tmp_path, [done("a")])
    assert without_own(tmp_path.iterdir()) == []

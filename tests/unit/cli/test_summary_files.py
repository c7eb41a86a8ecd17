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


def read(folder):
    return json.loads((folder / "summary.json").read_text())["inputs"]


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
                "input": str(Path("a.svs").absolute()),
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


def test_a_run_from_another_folder_knows_the_rows(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    write_summaries(tmp_path, [done("a.svs"), done("b.svs")])
    monkeypatch.chdir(tmp_path / "two")
    again = Outcome(Path("../one/b.svs"), "failed", encoder="small")
    write_summaries(tmp_path, [done("a.svs", rows=9), again])
    rows = [
        (str(tmp_path / name), *more)
        for name, *more in (
            ("one/a.svs", "8", "done"),
            ("one/b.svs", "0", "failed"),
            ("two/a.svs", "9", "done"),
        )
    ]
    assert listed(tmp_path, "input", "rows", "status") == rows
    assert [one["input"] for one in read(tmp_path)] == [row[0] for row in rows]


def test_relative_rows_of_earlier_versions_are_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_summaries(tmp_path, [done("a.svs")])
    file = tmp_path / "summary.json"
    file.write_text(file.read_text().replace(json.dumps(str(tmp_path / "a.svs")), '"a.svs"'))
    assert [one["input"] for one in read(tmp_path)] == ["a.svs"]
    write_summaries(tmp_path, [done("a.svs", rows=9)])
    assert [(one["input"], one["rows"]) for one in read(tmp_path)] == [(str(tmp_path / "a.svs"), 9)]


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

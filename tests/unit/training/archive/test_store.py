"""The two files of a manifest, a person's edits in them, and what is wrong with those."""

import csv
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from pathencoder.errors import ConfigError
from training.archive.row import COLUMNS, Row
from training.archive.store import Manifest, csv_of, read_manifest, write_manifest

pytestmark = pytest.mark.full
SHARES = {"train": 0.9, "val": 0.1}


def row(name, **values):
    known = {
        "slide": name,
        "patient": f"p-{ord(name[0]):016x}",
        "split": "train",
        "src": "folder:/d",
        "source_id": f"{name}.svs",
        "file": f"d/{name}.svs",
        "size": 12,
        "mpp_value": 0.2525,
    }
    return Row(**(known | values))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "m.parquet"
    write_manifest(path, Manifest([row("a"), row("b", stain_confidence=0.9), row("c")], SHARES))
    return path


def edit(file, change):
    """Apply `change` to the rows of the CSV, each a dictionary."""
    with csv_of(file).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows = change(rows) or rows
    columns = list(rows[0])
    with csv_of(file).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def test_what_is_written_is_read_and_the_same_rows_give_the_same_bytes(file):
    found = read_manifest(file)
    assert [r.slide for r in found.rows] == ["a", "b", "c"]
    assert found.rows[1] == row("b", stain_confidence=0.9)
    assert (found.shares, found.edits) == (SHARES, 0)
    before = file.read_bytes(), csv_of(file).read_bytes()
    write_manifest(file, Manifest(found.rows[::-1], SHARES))
    assert (file.read_bytes(), csv_of(file).read_bytes()) == before
    assert pq.read_schema(file).field("size").type == "int64"


def test_edits_of_the_csv_count_as_a_spreadsheet_writes_them(file):
    def change(rows):
        rows[0] |= {"stain_class": "IHC", "stain": "CD3", "mpp_value": "0,5"}
        rows[1]["use"] = "no"

    edit(file, change)
    found = read_manifest(file)
    assert found.edits == 2
    a, b, _ = found.rows
    assert (a.stain_class, a.stain, a.mpp_value, a.mpp_from) == ("ihc", "CD3", 0.5, "given")
    assert (a.stain_from, a.stain_confidence) == ("given", 1.0)
    assert a.edits == {"stain_class", "stain", "mpp_value"}
    assert (b.use, b.edited) == (False, "use")


def test_edits_of_the_parquet_file_count_too(file):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(file)
    frame.loc[frame.slide == "c", "organ"] = "lung"
    frame.to_parquet(file)
    found = read_manifest(file)
    assert found.rows[2].organ == "lung"
    assert found.rows[2].edited == "organ"
    assert found.rows[0] == row("a")


def test_all_problems_are_in_one_list(file):
    def change(rows):
        rows[0] |= {"stain_class": "purple", "mpp_value": "fine", "licence": "mine"}
        rows[1] |= {"size": "13", "split": "2"}
        del rows[2]
        for r in rows:
            del r["organ"]
            r |= {"patient_name": "Doe", "colour": "red"}

    edit(file, change)
    with pytest.raises(ConfigError) as error:
        read_manifest(file)
    text = str(error.value)
    for words in (
        "line 2: stain_class is 'purple'",
        "mpp_value is 'fine'",
        "licence is 'mine'",
        "size cannot be edited",
        "split is '2'",
        "1 row was removed (c)",
        "the column 'organ' is missing",
        "the column 'patient_name' describes a person",
        "the column 'colour' is not known",
    ):
        assert words in text
    assert "Doe" not in text


def test_removed_rows_come_back_unused_where_that_is_asked_for(file):
    edit(file, lambda rows: rows[:2])
    with pytest.raises(ConfigError, match="--accept-removed"):
        read_manifest(file)
    found = read_manifest(file, accept_removed=True)
    assert [(r.slide, r.use) for r in found.rows] == [("a", True), ("b", True), ("c", False)]


def test_rows_that_were_added_or_are_there_twice_are_named(file):
    def change(rows):
        rows[1]["source_id"] = "other.svs"
        return [*rows, dict(rows[0])]

    edit(file, change)
    with pytest.raises(ConfigError) as error:
        read_manifest(file)
    assert "the row of slide 'b' was added" in str(error.value)
    assert "is there 2 times" in str(error.value)


def test_a_patient_in_two_splits_and_an_evaluation_set_in_use_are_named(tmp_path):
    same = "p-0000000000000001"
    rows = [
        row("a", patient=same),
        row("b", patient=same, split="test"),
        row("c", excluded="lgg36", use=True),
    ]
    file = tmp_path / "m.parquet"
    write_manifest(file, Manifest(rows, SHARES))
    with pytest.raises(ConfigError) as error:
        read_manifest(file)
    assert "a patient is in 2 splits (test: b, train: a)" in str(error.value)
    assert "belongs to an evaluation set (lgg36)" in str(error.value)
    assert same not in str(error.value)


def test_a_slide_that_gets_another_patient_gets_its_split_by_the_next_run(tmp_path):
    file = tmp_path / "m.parquet"
    write_manifest(file, Manifest([row("a"), row("b", split="test")], SHARES))

    def change(rows):
        rows[1]["patient"] = rows[0]["patient"]

    edit(file, change)
    assert read_manifest(file).rows[1].split == ""


def test_edits_of_both_files_are_refused(file):
    rows = read_manifest(file).rows
    text = csv_of(file).read_bytes()
    write_manifest(file, Manifest([replace(rows[0], organ="lung"), *rows[1:]], SHARES))
    table = pq.read_table(file)
    csv_of(file).write_bytes(text)  # of the file before: edited, from the Parquet file's view
    assert read_manifest(file).rows[0].organ == ""
    table = table.set_column(COLUMNS.index("note"), "note", [["x", "y", "z"]])
    pq.write_table(table, file)
    with pytest.raises(ConfigError, match="both edited"):
        read_manifest(file)


def test_places_outside_the_folder_of_downloads_are_refused(tmp_path):
    file = tmp_path / "m.parquet"
    for place in ("../a.svs", "/etc/a.svs", "a/../../b", "c:\\a.svs"):
        write_manifest(file, Manifest([row("a", file=place)], SHARES))
        with pytest.raises(ConfigError, match="a relative path"):
            read_manifest(file)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such manifest"):
        read_manifest(tmp_path / "m.parquet")
    with pytest.raises(ConfigError, match=r"ends in \.parquet"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.parquet").write_text("text")
    with pytest.raises(ConfigError, match="not a Parquet file"):
        read_manifest(tmp_path / "m.parquet")

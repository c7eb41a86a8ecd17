"""Which row of --slides-csv is whose.

What could give an input another scale than was meant is refused or said.
"""

import re
from pathlib import Path

import pytest

from pathencoder.cli.inputs import Job
from pathencoder.cli.mpp_table import NUCLEI, Row, assign, read_mpp_csv, with_row
from pathencoder.errors import ConfigError
from pathencoder.features.provenance import Settings


@pytest.mark.parametrize(
    "text",
    [
        "slide,mpp\na,0_25\n",
        "slide,mpp\na,250\n",
        "slide,mpp\na,0.25 um\n",
        "slide,mpp,unit\na,0.25,mm\n",
    ],
)
def test_numbers_of_another_unit_or_spelling_are_refused(tmp_path, text):
    (tmp_path / "mpp.csv").write_text(text)
    with pytest.raises(ConfigError, match="line 2"):
        read_mpp_csv(tmp_path / "mpp.csv")


def test_a_column_that_says_micrometres_is_fine(tmp_path):
    (tmp_path / "mpp.csv").write_text("slide,mpp,unit\na,0.25,um\n")
    assert [row.mpp for row in read_mpp_csv(tmp_path / "mpp.csv")] == [0.25]


def read(tmp_path, text):
    (tmp_path / "slides.csv").write_text(text)
    return read_mpp_csv(tmp_path / "slides.csv")


def test_every_setting_has_a_column_and_an_empty_cell_leaves_it(tmp_path):
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn/a.geojson").write_text("{}")
    one, other = read(
        tmp_path,
        "slide;MPP;target_mpp;min_tissue;tissue;stain\n"
        "a;0,25;0,5;0,1;drawn/a.geojson;IHC\nb;;1;0;;\n",
    )
    assert one.given() == {
        "mpp": 0.25,
        "target_mpp": 0.5,
        "min_tissue": 0.1,
        "tissue": tmp_path / "drawn/a.geojson",
        "stain": "ihc",
    }
    assert other.given() == {"target_mpp": 1, "min_tissue": 0}
    settings = Settings(mpp=2, min_tissue=0.5, overlap_px=3)
    assert with_row(settings, other) == Settings(mpp=2, target_mpp=1, min_tissue=0, overlap_px=3)
    assert with_row(settings, None) is settings


def test_all_rows_that_are_wrong_are_listed_at_once(tmp_path):
    text = "slide,mpp,min_tissue,tissue,stain\na,0,2,no.geojson,dab\nb,1,,,\n,1,,,\n"
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0][-6:] for line in lines] == ["line 2"] * 4 + ["line 4"]
    for words in ("mpp '0'", "min_tissue '2'", "no such file", "stain 'dab'", "a name is needed"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("slide,mp", "'mp' is not known. Did you mean 'mpp'"),
        ("slide,mpp,patient", "'patient' is not known. Columns are slide, mpp"),
        ("slide", "no setting besides 'slide'"),
        ("name,mpp", "lacks the column 'slide'"),
    ],
)
def test_columns_that_are_not_known_are_refused_with_the_nearest_name(tmp_path, header, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read(tmp_path, f"{header}\n{','.join('1' * len(header.split(',')))}\n")


def test_two_rows_with_other_settings_for_one_input_are_refused():
    jobs = [Job(Path("x/a.svs"), "slide", "a")]
    rows = [Row("line 2", "a", 0.25, min_tissue=0.1), Row("line 3", "a", 0.25)]
    with pytest.raises(
        ConfigError, match=r"different values of min_tissue \(line 2 says 0.1; line"
    ):
        assign(rows, jobs)
    with pytest.raises(ConfigError, match="different scales"):
        assign([Row("line 2", "a", 1.0), Row("line 3", "a", 0.5)], jobs)


def test_a_column_of_another_command_is_noted():
    jobs = [Job(Path("x/a.svs"), "slide", "a")]
    rows = [Row("line 2", "a", 0.25, min_tissue=0.1, stain="he")]
    assert [n.split("'")[1] for n in assign(rows, jobs).notes] == ["stain"]
    assert [n.split("'")[1] for n in assign(rows, jobs, NUCLEI).notes] == ["min_tissue"]


def test_a_row_that_names_several_inputs_is_said():
    jobs = [Job(Path("x/a.svs"), "slide", "x-a"), Job(Path("y/a.svs"), "slide", "y-a")]
    found = assign([Row("mpp.csv, line 2", "a", 0.25)], jobs)
    assert [row.mpp for row in found.rows] == [0.25, 0.25]
    assert "'a' names 2 inputs (x/a.svs, y/a.svs)" in found.notes[0]
    assert assign([Row("mpp.csv, line 2", "x/a", 0.25)], jobs).notes == []


def one_file_name(*patients):
    return [Job(Path(f"{name}/HE.tiff"), "slide", f"{name}-HE") for name in patients]


def test_a_row_of_another_folder_is_not_given_to_an_input_of_the_same_file_name():
    rows = [Row("line 2", "P1/HE.tiff", 0.25), Row("line 3", "P2/HE.tiff", 0.5)]
    found = assign(rows, one_file_name("P2", "P3"))
    assert [row and row.mpp for row in found.rows] == [0.5, None]
    assert found.notes == [
        "line 2: 'P1/HE.tiff' names no input, and is not used: the inputs of this name lie in"
        " other folders"
    ]
    assert [row and row.mpp for row in assign(rows[:1], one_file_name("P2", "P3")).rows] == [
        None,
        None,
    ]
    assert [row and row.mpp for row in assign(rows, one_file_name("P3")).rows] == [None]
    general = [*rows, Row("line 4", "HE.tiff", 1.0)]
    assert [row and row.mpp for row in assign(general, one_file_name("P2", "P3")).rows] == [0.5, 1]


def test_the_only_row_of_a_file_name_is_used_from_another_folder_and_said(tmp_path):
    found = assign([Row("line 2", "D:\\scans\\HE.tiff", 0.25)], one_file_name("P2"))
    assert [row.mpp for row in found.rows] == [0.25]
    assert "is used for P2/HE.tiff, which lies in another folder" in found.notes[0]
    for name in ("P1", "P2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "HE.tiff").touch()
    jobs = [Job(tmp_path / "P2/HE.tiff", "slide", "HE")]
    found = assign([Row("line 2", str(tmp_path / "P1/HE.tiff"), 0.25)], jobs)
    assert found.rows == [None]


def test_rows_stay_with_their_inputs_when_some_are_taken():
    jobs = one_file_name("P1", "P2")
    rows = [Row("line 2", "P1/HE", 0.25), Row("line 3", "P2-HE", 0.5)]
    every = assign(rows, jobs)
    assert [row.mpp for row in every.of(jobs[1:], jobs).rows] == [0.5]

"""Which row of --mpp-csv is whose.

What could give an input another scale than was meant is refused or said.
"""

from pathlib import Path

import pytest

from pathencoder.cli.inputs import Job
from pathencoder.cli.mpp_table import Row, assign, read_mpp_csv
from pathencoder.errors import ConfigError


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


def test_a_row_that_names_several_inputs_is_said():
    jobs = [Job(Path("x/a.svs"), "slide", "x-a"), Job(Path("y/a.svs"), "slide", "y-a")]
    found = assign([Row("mpp.csv, line 2", "a", 0.25)], jobs)
    assert found.mpps == [0.25, 0.25]
    assert "'a' names 2 inputs (x/a.svs, y/a.svs)" in found.notes[0]
    assert assign([Row("mpp.csv, line 2", "x/a", 0.25)], jobs).notes == []

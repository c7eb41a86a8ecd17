"""Tables as spreadsheets write them: byte order marks, delimiters, spaces, case, decimal commas."""

import codecs

import pytest

from pathencoder.errors import ConfigError
from pathencoder.tables import number, read_table


def write(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "t.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return file


ROWS = [{"slide": "a.svs", "mpp": "0.25"}, {"slide": "b, c.svs", "mpp": ""}]


@pytest.mark.parametrize(
    "text",
    [
        'slide,mpp\na.svs,0.25\n"b, c.svs",\n',
        "slide;mpp\r\na.svs;0.25\r\n\r\nb, c.svs;\r\n",
        "Slide\t MPP \na.svs\t 0.25\nb, c.svs\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_one_table_in_many_forms(tmp_path, text, encoding):
    table = read_table(write(tmp_path, text, encoding), required=("slide", "mpp"))
    assert table.rows == ROWS
    assert table.columns == ("slide", "mpp")


def test_rows_know_their_lines(tmp_path):
    table = read_table(write(tmp_path, "slide\n\na\nb\n"))
    assert [where.rpartition(", ")[2] for where, _ in table] == ["line 3", "line 4"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide\na\n", "lacks the column 'mpp'; it has slide"),
        ("", "lacks the column 'slide'; it has nothing"),
        ("slide,mpp,Slide\n", "the column 'slide' twice"),
        ("slide,mpp\na,0,25\n", "line 2: 3 values, but the header has 2 columns"),
        (b"slide,mpp\na,1\nM\xfcller,1\n", "line 3: not UTF-8"),
        (b"slide,mpp\n\0\0\0\n", "binary data"),
        (codecs.BOM_UTF16_LE + b"a\0b", "not UTF-8 text"),
    ],
)
def test_other_files_are_refused(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        read_table(write(tmp_path, text), required=("slide", "mpp"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_table(tmp_path / "none.csv")


def test_numbers_with_decimal_commas():
    assert number("0,25", ";") == 0.25
    assert number("0.25") == 0.25
    with pytest.raises(ValueError, match="0,25"):
        number("0,25")


def test_a_remark_in_the_last_column_may_hold_the_delimiter(tmp_path):
    file = tmp_path / "meta.csv"
    file.write_text('file,mpp,note\na.png,0.5,"dots, dilated"\nb.png,0.5,dots, not outlines\n')
    rows = read_table(file, last_is_text=True).rows
    assert [row["note"] for row in rows] == ["dots, dilated", "dots, not outlines"]
    with pytest.raises(ConfigError, match="line 3: 4 values"):
        read_table(file)

"""The values of a table: which rows are trained on, and which values are refused."""

import logging

import pytest
from small_shards import tile, write_table, write_tar

from pathencoder.errors import ConfigError
from training.data.corpus import open_corpus
from training.data.tiles import STAIN_CLASSES
from training.data.values import Split, is_used, name_of, split_of

pytestmark = pytest.mark.full


@pytest.mark.parametrize(
    ("texts", "split"),
    [
        (("", "nan", "NA", "None", "-"), Split("", False)),
        (("train", "TRAIN", "Training", "train set", "pretrain"), Split("train", False)),
        (("folds", "Fold"), Split("folds", False)),
        (("fold3", "Fold 3", "fold_03", "FOLD-3"), Split("fold 3", False)),
        (
            ("val", "Valid", "VALIDATION", "dev", "val2", "tune", "validation-set"),
            Split("val", True),
        ),
        (("test", "Test", "TESTING", "testA", "test_1", "test set", "test-B"), Split("test", True)),
        (("hold out", "Hold-Out", "holdout"), Split("holdout", True)),
        (("held-out", "heldout"), Split("heldout", True)),
        (("benchmark",), Split("benchmark", True)),
    ],
)
def test_splits_have_many_spellings(texts, split):
    assert {text: split_of(text) for text in texts} == dict.fromkeys(texts, split)


@pytest.mark.parametrize(
    "text",
    ["0", "1", "2", "unknown", "?", "tset", "internal", "all", "traintest", "external test", "x"],
)
def test_an_ambiguous_split_is_refused(text):
    with pytest.raises(ValueError, match="trained on"):
        split_of(text)


def test_use_has_many_spellings():
    assert all(is_used(text) for text in ("1", "1.0", "true", "TRUE", "Yes", "y"))
    assert not any(is_used(text) for text in ("0", "0.0", "false", "False", "NO", "n"))
    for text in ("", "2", "-1", "nan", "maybe", "01", "x"):
        with pytest.raises(ValueError, match="known are"):
            is_used(text)


def test_values_that_stand_for_no_name():
    assert not any(
        name_of(text)
        for text in ("", "NaN", "nan", "NA", "N/A", "unknown", "Unknown", "None", "?", "<NA>")
    )
    assert name_of("Nancy") == "Nancy"


@pytest.fixture
def table(tmp_path):
    """Writes manifest.csv of four tiles, each a line of the text given, and opens it."""
    write_tar(tmp_path / "a.tar", [(f"{i}.png", tile(i)) for i in range(4)])

    def opened(columns, *rows, **filters):
        lines = [f"shard key {columns}", *(f"a.tar {i} {row}" for i, row in enumerate(rows))]
        write_table(tmp_path / "manifest.csv", "\n".join(lines))
        return open_corpus(tmp_path, **filters)

    return opened


@pytest.mark.parametrize(
    ("columns", "bad", "words"),
    [
        ("use", "2", "line 4: use is '2'; known are 1, true, yes and 0, false, no"),
        ("use", "-", "line 4: use is ''; known"),
        ("split", "tset", r"line 4: split is 'tset'; known are \(trained on\) train"),
        ("split", "1", "line 4: split is '1'"),
        ("licence", "CC-BY", "line 4: licence is 'CC-BY'; known are P, N, CC0-1.0, "),
        (
            "stain_class",
            "H&E",
            "line 4: stain_class is 'H&E'; known are he, ihc, .* or nothing; nearest: he",
        ),
    ],
)
def test_a_value_that_is_not_known_is_refused(table, columns, bad, words):
    good = {"use": "1", "split": "train", "licence": "P", "stain_class": "he"}[columns]
    with pytest.raises(ConfigError, match=words):
        table(columns, good, good, bad, good)


@pytest.mark.parametrize("no", ["0", "0.0", "False", "no", "N", "FALSE"])
def test_rows_that_must_not_be_used_are_left_out(table, no):
    assert table("Use", "1", "true", no, "Yes").keys == ["0", "1", "3"]


def test_rows_of_held_out_splits_are_left_out(table):
    assert table("SPLIT", "Train", "TESTING", "held-out", "fold3").keys == ["0", "3"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_spreadsheets_are_read(tmp_path, encoding, delimiter):
    write_tar(tmp_path / "a.tar", [(f"{i}.png", tile(i)) for i in range(3)])
    lines = ("Shard, Key,Use , Licence", "a.tar,0, 1,p ", "a.tar,1,0 ,P", "a.tar,2,1,n")
    (tmp_path / "manifest.csv").write_bytes(
        "\r\n".join(lines).replace(",", delimiter).encode(encoding)
    )
    assert open_corpus(tmp_path, licences=("P",)).keys == ["0"]


@pytest.mark.parametrize(
    ("file", "header", "lacking"),
    [
        ("manifest.csv", "shard slide", "key"),
        ("manifest.csv", "key", "shard"),
        ("slides.csv", "slide shard first", "tiles"),
    ],
)
def test_a_missing_column_is_refused(tmp_path, file, header, lacking):
    write_table(tmp_path / file, f"{header}\n{header}")
    with pytest.raises(ConfigError, match=f"lacks the column '{lacking}'"):
        open_corpus(tmp_path)


@pytest.mark.parametrize(
    ("typed", "meant"), [("license", "licence"), ("used", "use"), ("splits", "split")]
)
def test_a_misnamed_column_is_refused(table, typed, meant):
    with pytest.raises(
        ConfigError, match=f"the column '{typed}' is not read. Rename it to '{meant}'"
    ):
        table(typed, "0")


@pytest.mark.parametrize(
    ("filters", "column"),
    [
        ({"licences": ("P",)}, "licence"),
        ({"stains": ("he",)}, "stain_class"),
        ({"without": ("a",)}, "src"),
    ],
)
def test_a_filter_without_its_column_is_refused(table, tmp_path, filters, column):
    with pytest.raises(ConfigError, match=f"has no column '{column}'"):
        table("organ", "x", "y", **filters)
    (tmp_path / "plain/s").mkdir(parents=True)
    (tmp_path / "plain/s/0.png").write_bytes(tile(0))
    with pytest.raises(
        ConfigError, match=f"has no manifest.csv or slides.csv with a column '{column}'"
    ):
        open_corpus(tmp_path / "plain", **filters)


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (
            {"without": ("scannerB", "scanerA")},
            r"data.without=\[scannerB, scanerA\]: no row .* has src 'scanera'; nearest: scannera",
        ),
        ({"stains": ("ICH",)}, "has stain_class 'ich'; nearest: ihc"),
        ({"licences": ("P", "N")}, "has licence 'n'; there are: p"),
    ],
)
def test_a_filter_that_nothing_matches_is_refused(table, filters, words):
    with pytest.raises(ConfigError, match=words):
        table("src licence stain_class", "scannerA P he", "scannerB P ihc", **filters)


def test_filters_ignore_case(table):
    rows = ("scannerA P HE", "scannerB p ihc", "scannerA N he", "scannerA - -")
    assert table("src licence stain_class", *rows, licences=("p",), stains=("He",)).keys == ["0"]
    assert table("src licence stain_class", *rows, without=("SCANNERA",)).keys == ["1"]
    assert table("src licence stain_class", *rows, stains=("unknown",)).keys == ["3"]
    assert table("src licence stain_class", *rows).stain_counts() == {
        "he": 2,
        "ihc": 1,
        "unknown": 1,
    }
    assert STAIN_CLASSES.index("unknown") == 5


def test_rows_left_out_are_logged(table, caplog):
    with caplog.at_level(logging.INFO):
        table("use split licence", "1 train P", "no train P", "1 Test P", "1 - N", licences=("P",))
    assert (
        "3 of 4 rows left out: 1 (use says no), 1 (split test), 1 (not asked for by data.licences)"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("columns", "one", "other", "words"),
    [
        (
            "patient split",
            "p1 train",
            "P1 Test",
            r"1 patients are in two splits: P1 \(test and train\)",
        ),
        ("patient split", "p1 fold1", "p1 fold2", r"p1 \(fold 1 and fold 2\)"),
        ("patient split", "p1 test", "p1 -", r"p1 \(none and test\)"),
        ("slide split", "s1 val", "s1 train", r"1 slides are in two splits: s1 \(train and val\)"),
    ],
)
def test_patients_and_slides_in_two_splits_are_refused(table, columns, one, other, words):
    with pytest.raises(ConfigError, match=words):
        table(columns, one, other)


@pytest.mark.parametrize("name", ["-", "NaN", "NA", "unknown", "Unknown"])
def test_slides_without_a_name_are_not_merged(table, name, caplog):
    corpus = table(
        "patient slide split", f"{name} {name} train", f"{name} {name} test", f"{name} {name} train"
    )
    assert corpus.slide_names == ["0", "2"]
    assert "2 tiles have no slide: each is treated as a separate slide" in caplog.text


def test_two_spellings_of_a_split_are_one_split(table):
    assert len(table("patient split", "p train", "p TRAINING", "p Train")) == 3


def test_slides_whose_rows_differ_are_logged(table, caplog):
    table("slide patient organ", "s p1 colon", "s p2 Colon", "t p3 lung")
    assert "the rows of 1 slides name several patients (s)" in caplog.text
    assert "organs" not in caplog.text


def test_a_second_table_is_logged(tmp_path, caplog):
    write_tar(tmp_path / "a.tar", [("0.png", tile(0))])
    write_table(tmp_path / "manifest.csv", "shard key\na.tar 0")
    write_table(tmp_path / "slides.csv", "slide shard first tiles\ns a.tar 0 1")
    open_corpus(tmp_path)
    assert "only slides.csv is read" in caplog.text

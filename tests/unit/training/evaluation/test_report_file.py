"""The file of an evaluation: written and read alike, and refused with the reason when wrong."""

import dataclasses
import json

import pytest
from small_reports import report, result

from pathencoder.errors import ConfigError
from training.evaluation.report_file import parse_report, read_report, without_places, write_report

pytestmark = pytest.mark.full


def test_what_is_written_is_read(tmp_path):
    write_report(tmp_path / "evaluation.json", report())
    assert read_report(tmp_path / "evaluation.json") == report()


def test_rows_are_found_by_name_by_weights_and_by_field():
    found = report()
    assert found.row("default").role == "evaluated"
    assert [r.name for r in found.rows_of("a" * 64)] == ["default"]
    assert found.rows_of("f" * 64) == []
    assert [r.encoder for r in found.find(metric="auroc", set="polyps")] == ["default", "random"]
    with pytest.raises(ConfigError, match="no row 'mine'; it has default, random"):
        found.row("mine")


def wrong(**changes):
    return dataclasses.replace(report(), **changes)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (wrong(results=(result(encoder="mine"),)), "encoder 'mine', which is no row"),
        (wrong(results=(result(set="mine"),)), "set 'mine', which is no row"),
        (wrong(results=(result(metric="accuracy"),)), "unknown metric 'accuracy'; there are"),
        (wrong(results=(result(), result())), "two results of default polyps test probe auroc"),
        (wrong(results=(result(value=None),)), "no value and no note"),
        (wrong(results=(result(value=float("nan")),)), "results.0.value"),
        (wrong(results=(result(verb="guess"),)), "results.0.verb"),
        (wrong(date="yesterday"), "date"),
        (wrong(encoders=()), "encoders"),
    ],
)
def test_wrong_content_is_not_written(tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        write_report(tmp_path / "evaluation.json", changed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("[]", "is no evaluation"),
        ('{"measured": {}}', "is no evaluation"),
        ('{"format": "pathencoder-evaluation", "schema": 2}', "of schema 2, this version reads 1"),
        ('{"format": "pathencoder-evaluation", "schema": 1}', "date: Field required"),
    ],
)
def test_other_files_are_refused_with_the_command_that_makes_one(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_report(text, "evaluation.json")
    assert str(error.value).startswith("evaluation.json")


def test_a_value_edited_to_text_is_refused():
    values = dataclasses.asdict(report())
    values["results"][0]["value"] = "0.99"
    with pytest.raises(ConfigError, match=r"results\.0\.value"):
        parse_report(json.dumps(values))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json cannot be read"):
        read_report(tmp_path / "none.json")


def test_no_path_of_this_machine_is_in_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = f"all m={tmp_path}/runs/m, /data/x/labels.csv: a/b; of https://a.org/b/c, ~/d/e, / f"
    assert without_places(text) == (
        "all m=runs/m, labels.csv: a/b; of https://a.org/b/c, ~/d/e, / f"
    )

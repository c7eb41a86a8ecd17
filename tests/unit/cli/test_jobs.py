"""The loop over inputs: what each kind of error costs, and what is reported."""

import csv
from pathlib import Path

import pytest

from pathencoder.cli import report
from pathencoder.cli.jobs import Loop, conclude
from pathencoder.errors import ConfigError, ImageError, StoreError
from pathencoder.features.job import Outcome
from pathencoder.features.store import Failure
from pathencoder.files import Mismatch
from pathencoder.locks import Busy


def loop(errors, *, debug=False):
    """Does jobs that are names; raises what `errors` holds for a name."""

    def do(job, meter):
        meter(3, 8)
        if job in errors:
            raise errors[job]
        return Outcome(Path(job), "done", rows=8)

    return Loop(do, Path, str, debug=debug).run(["a", "b", "c"])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ImageError("b: not an image"), "failed", "b: not an image"),
        (ConfigError("b: does not fit"), "failed", "does not fit"),
        (Mismatch("b.h5 is of another input"), "failed", "another input"),
        (TypeError("boom"), "failed", "a bug in pathencoder: TypeError: boom"),
        (KeyError(), "failed", "a bug in pathencoder: KeyError."),
        (MemoryError(), "failed", "not enough memory"),
        (Busy("b.h5"), "busy", ""),
    ],
)
def test_an_error_costs_its_input_alone(error, status, said):
    ended = loop({"b": error})
    assert [o.status for o in ended.outcomes] == ["done", status, "done"]
    assert said in "".join(f.reason for f in ended.outcomes[1].failures)
    assert ended.status == (0 if status == "busy" else 3)


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (StoreError("the disk is full"), 1)]
)
def test_what_stops_the_loop_leaves_a_summary(error, status, tmp_path, capsys):
    ended = loop({"b": error})
    assert [(o.source.name, o.status, o.notes) for o in ended.outcomes] == [
        ("a", "done", []),
        ("b", "stopped", ["3 of 8 done"]),
        ("c", "unreached", []),
    ]

    def text(failures):
        return report.summary(ended.outcomes, report.About("small", tmp_path), failures=failures)

    assert conclude(ended, tmp_path, as_text=text) == status
    out, errors = capsys.readouterr()
    for word in ("b: not finished, 3 of 8 done", "c: not reached"):
        assert word in out
    assert ("same command resumes" if status == 130 else "the disk is full") in errors


def test_debug_shows_a_traceback_and_the_other_inputs_are_done(capsys):
    ended = loop({"b": TypeError("boom")}, debug=True)
    assert [o.status for o in ended.outcomes] == ["done", "failed", "done"]
    assert "Traceback" in capsys.readouterr().err


def listed(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            (Path(row["input"]).name, row["part"], row["reason"]) for row in csv.DictReader(stream)
        ]


def test_failures_of_other_inputs_stay(tmp_path):
    def write(*outcomes):
        return report.write_failures(tmp_path, outcomes)

    old, new = [Failure("", "old")], [Failure("", "new")]
    write(Outcome(Path("x"), "failed", failures=old), Outcome(Path("y"), "failed", failures=old))
    assert listed(
        write(Outcome(Path("x").absolute(), "failed", failures=new), Outcome(Path("z"), "done"))
    ) == [
        ("y", "", "old"),
        ("x", "", "new"),
    ]
    assert listed(write(Outcome(Path("x"), "unreached"), Outcome(Path("y"), "done"))) == [
        ("x", "", "new")
    ]
    assert write(Outcome(Path("x"), "before")) is None
    assert not list(tmp_path.iterdir())


def test_failures_of_other_images_of_a_folder_stay(tmp_path):
    def write(part, *reasons):
        failures = [Failure(part, reason) for reason in reasons]
        return report.write_failures(
            tmp_path, [Outcome(Path("x"), "done", failures=failures, parts=frozenset({part}))]
        )

    write("1.png", "cut short")
    assert listed(write("2.png", "empty")) == [("x", "1.png", "cut short"), ("x", "2.png", "empty")]
    assert listed(write("1.png")) == [("x", "2.png", "empty")]


def test_an_input_that_fails_as_a_whole_keeps_what_is_known_of_its_parts(tmp_path):
    bad = [Failure("1.png", "cut short")]
    report.write_failures(tmp_path, [Outcome(Path("x"), "done", failures=bad)])
    path = report.write_failures(
        tmp_path, [Outcome(Path("x"), "failed", failures=[Failure("", "another folder")])]
    )
    assert listed(path) == [("x", "1.png", "cut short"), ("x", "", "another folder")]
    assert report.write_failures(tmp_path, [Outcome(Path("x"), "done")]) is None


def test_a_file_that_is_no_list_of_failures_is_not_touched(tmp_path):
    (tmp_path / "failures.csv").write_text("mine,own\n1,2\n")
    with pytest.raises(StoreError, match="not changed"):
        report.write_failures(
            tmp_path, [Outcome(Path("x"), "failed", failures=[Failure("", "why")])]
        )
    assert (tmp_path / "failures.csv").read_text() == "mine,own\n1,2\n"


def test_names_that_are_no_text_are_reported(tmp_path, capsys):
    name = Path("M\udcfcller.png")
    path = report.write_failures(
        tmp_path, [Outcome(name, "failed", failures=[Failure("", f"{name}: no image")])]
    )
    assert listed(path) == [("M\\xfcller.png", "", "M\\xfcller.png: no image")]

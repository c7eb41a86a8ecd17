"""The command line: help without torch, exit status, errors, inputs, names of outputs."""

import csv
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from dicom_headers import dicom
from PIL import Image

from pathencoder.cli import main, report
from pathencoder.cli.inputs import find_inputs
from pathencoder.cli.main import VERBS, run
from pathencoder.cli.meter import Meter
from pathencoder.features.job import Outcome
from pathencoder.features.store import Failure


def test_help_imports_neither_torch_nor_timm():
    heavy = "{'torch', 'timm', 'h5py', 'numpy'} & set(sys.modules)"
    code = (
        "import sys; from pathencoder.cli.main import run; status = run(['--help']);"
        f" sys.exit(status or len({heavy}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    assert run([verb, "--help"]) == 0
    text = capsys.readouterr().out.split("Usage:")[1].split("Options:")[0].split("\n", 1)[1]
    assert f"pathencoder {verb}" in text
    assert "\\b" not in text  # a raw docstring: click then runs the lines of the examples together


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (["encode"], "Missing"),
        (["encode", "x"], "--out"),
        (["encode", "x", "--out", "y", "--layout", "wrong"], "trident"),
        (["encode", "x", "--out", "y", "--mpp", "-1"], "range"),
        (["encode", "x", "--out", "y", "--batch-size", "many"], "auto"),
        (["encode", "x", "--out", "y", "--output", "dense", "--layout", "clam"], "dense"),
        (["nonsense"], "No such command"),
        (["encod"], "Did you mean 'encode'"),
        (["ENCODE"], "Missing"),
        (["fetch"], "Missing"),
        (["demo", "--point", "here"], "X,Y"),
    ],
)
def test_wrong_usage_is_2_and_says_what(line, word, capsys):
    assert run(line) == 2
    assert word in capsys.readouterr().err


def test_an_unknown_encoder_is_a_sentence_and_2(capsys):
    assert run(["info", "phikn"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert "phikon" in text
    assert "Traceback" not in text


def test_debug_shows_the_traceback(capsys):
    assert run(["info", "phikn", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (RuntimeError("boom"), 1)]
)
def test_what_stops_a_verb_decides_the_status(error, status, monkeypatch, capsys):
    def stopped(*_, **__):
        raise error

    monkeypatch.setattr(main.group, "main", stopped)
    assert run(["list"]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_list_and_its_json(capsys):
    assert run(["list", "*phikon*"]) == 0
    assert "phikon-v2" in capsys.readouterr().out
    assert run(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["bundled"] is True
    assert {"name", "dim", "mpp", "licence", "gate"} <= set(rows[0])
    assert run(["list", "no-such-*"]) == 0
    assert "No encoder matches" in capsys.readouterr().out


def test_list_filters(capsys):
    assert run(["list", "--commercial", "--json"]) == 0
    assert all(row["commercial"] for row in json.loads(capsys.readouterr().out))
    assert run(["list", "--stain", "ihc", "--json"]) == 0
    assert all("ihc" in row["stains"] for row in json.loads(capsys.readouterr().out))


def test_list_filters_combine_and_sizes_are_readable(capsys):
    asked = ["list", "--stain", "ihc", "--commercial", "--max-params", "30M"]
    assert run([*asked, "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["pathencoder-tiny"]
    assert run(["list", "uni*", "--max-params", "0.5b"]) == 0
    text = capsys.readouterr().out
    assert " 303M " in text
    assert "uni2-h" not in text
    assert run(["list", "*conch*", "--max-params", "1B"]) == 0
    assert "their size or stains are not known to us: conch, conchv1.5" in capsys.readouterr().out
    assert run(["list", "--max-params", "many"]) == 2
    assert "such as 30M or 1.1B" in capsys.readouterr().err


def test_encoders_that_are_not_loaded_are_listed_with_what_they_need(capsys):
    assert run(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["uni"]["loads"] is True
    assert rows["titan"]["loads"] is False
    assert run(["list"]) == 0
    assert "Encoders of slides, not loaded" in capsys.readouterr().out
    assert run(["info", "Titan"]) == 0
    text = capsys.readouterr().out
    assert "the tile vectors of conchv1.5" in text
    assert "no commercial use" in text
    assert run(["info", "conch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["needs"].startswith("the package conch")
    assert run(["fetch", "conch"]) == 2
    assert "does not load it" in capsys.readouterr().err


def test_info_says_when_numbers_were_not_checked(capsys):
    assert run(["info", "uni"]) == 0
    text = capsys.readouterr().out
    assert "not checked against its weights" in text
    assert "no commercial use" in text
    assert "1024 numbers: the class token" in text
    assert run(["info"]) == 0
    assert "part of the package" in capsys.readouterr().out


def image(path, size=(20, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 150)).save(path)
    return path


def jobs_in(paths, **options):
    return find_inputs(paths, **options).jobs


def kinds(jobs):
    return {job.name: job.kind for job in jobs}


def test_a_folder_of_tiles_is_one_job_with_relative_keys(tmp_path):
    image(tmp_path / "tiles" / "b" / "2.png")
    image(tmp_path / "tiles" / "a10.png")
    image(tmp_path / "tiles" / "a2.png")
    image(tmp_path / "tiles" / ".hidden" / "x.png")
    (job,) = jobs_in([tmp_path / "tiles"])
    assert (job.kind, job.name, job.whole) == ("tiles", "tiles", True)
    assert [key for key, _ in job.images] == ["a2.png", "a10.png", "b/2.png"]


def test_slides_in_a_folder_are_found_by_suffix_and_dicom_by_folder(tmp_path):
    for name in (
        "a.svs",
        "sub/b.ndpi",
        "c.mrxs",
        "dicom/1.dcm",
        "dicom/2.dcm",
        "single/only.dcm",
        "odd.vsi",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    image(tmp_path / "tile.png")
    jobs = jobs_in([tmp_path])
    slides = {job.source.relative_to(tmp_path).as_posix() for job in jobs if job.kind == "slide"}
    assert slides == {"a.svs", "sub/b.ndpi", "c.mrxs", "dicom", "single/only.dcm", "odd.vsi"}
    assert [job.images[0][0] for job in jobs if job.kind == "tiles"] == ["tile.png"]
    assert {job.kind for job in jobs_in([tmp_path], taken_as="tiles")} == {"tiles"}
    assert {job.kind for job in jobs_in([tmp_path], taken_as="slides")} == {"slide"}


def test_names_differ_on_every_file_system(tmp_path):
    """Inputs that differ in folders, composed letters or case only, and names that are too long."""
    for name in (
        "a/x/M\u00fc.svs",
        "b/x/Mu\u0308.svs",
        "b/x/MU\u0308.svs",
        "b/x/M\u00fc.ndpi",
        "a-b/x.svs",
        "a/b-x.svs",
        f"{'l' * 240}.svs",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [job.name for job in jobs_in([tmp_path])]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == len(found) == 7
    assert max(len(name.encode()) for name in found) <= 180
    assert [job.name for job in jobs_in([tmp_path])] == found


def test_pictures_that_encode_writes_are_no_tiles(tmp_path):
    image(tmp_path / "tile.png")
    image(tmp_path / "pictures" / "slide.jpg")
    image(tmp_path / "pictures" / "pca" / "slide.jpg")
    found = find_inputs([tmp_path], out=tmp_path)
    assert [key for job in found.jobs for key, _ in job.images] == ["tile.png"]
    assert [left.path for left in found.left_out] == [tmp_path / "pictures"]


def test_dicom_files_of_one_series_are_one_slide(tmp_path):
    for name, options in {"a1": {}, "a2": {}, "label": {"kind": "LABEL"}}.items():
        (tmp_path / f"{name}.dcm").write_bytes(dicom("1.2.3", **options))
    assert [job.source for job in jobs_in(sorted(tmp_path.glob("*.dcm")))] == [tmp_path]
    assert [job.source for job in jobs_in([tmp_path / "a2.dcm"])] == [tmp_path / "a2.dcm"]
    (tmp_path / "b.dcm").write_bytes(dicom("4.5.6"))
    for inputs in ([tmp_path], sorted(tmp_path.glob("*.dcm"))):
        assert kinds(jobs_in(inputs)) == {"a1": "slide", "b": "slide"}


def test_images_of_a_vms_slide_are_no_tiles(tmp_path):
    (tmp_path / "s.vms").touch()
    image(tmp_path / "s(0,1).jpg")
    assert kinds(jobs_in([tmp_path])) == {"s": "slide"}


def test_missing_and_empty_inputs_say_why(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.docx").touch()
    jobs = jobs_in([tmp_path / "gone", tmp_path / "empty", tmp_path / "notes.docx"])
    assert [job.kind for job in jobs] == ["nothing"] * 3
    assert [
        word in job.problem
        for job, word in zip(jobs, ("no such", "no images or slides", "--as"), strict=True)
    ] == [True] * 3


def test_loose_images_of_a_folder_share_a_file_that_keeps_others(tmp_path):
    paths = [image(tmp_path / "tiles" / n) for n in ("1.png", "2.png")]
    (job,) = jobs_in([*paths, paths[0]])
    assert (job.name, job.whole) == ("tiles", False)
    assert [key for key, _ in job.images] == ["1.png", "2.png"]


def test_slides_with_the_same_stem_get_different_names(tmp_path):
    for name in ("x/s.svs", "x/s.ndpi", "y/s.svs", "y/A.ome.tif.svs", "z/s2.SVS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [job.name for job in jobs_in([tmp_path])]
    assert len({n.casefold() for n in names}) == len(names) == 5
    assert "s.ndpi" in names
    assert "s2" in names


def outcome(status, **more):
    return Outcome(Path(f"{status}.svs"), status, **more)


def test_status_follows_the_outcomes():
    bad, part = (
        outcome("failed", failures=[Failure("", "why")]),
        outcome("done", rows=3, failures=[Failure("1,2", "why")]),
    )
    assert (
        report.exit_status([outcome("done"), outcome("before"), outcome("empty"), outcome("busy")])
        == 0
    )
    assert report.exit_status([outcome("done"), bad]) == 3
    assert report.exit_status([part]) == 3
    assert report.exit_status([bad, bad]) == 1


def test_failures_are_a_csv_that_goes_when_all_is_well(tmp_path):
    reasons = [Failure("1,2", 'a "quoted", reason\nin two lines', "SlideError")]
    path = report.write_failures(tmp_path, [outcome("done", failures=reasons)])
    with path.open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [
            ["input", "part", "error", "reason"],
            [
                str(Path("done.svs").absolute()),
                "1,2",
                "SlideError",
                'a "quoted", reason\nin two lines',
            ],
        ]
    assert report.write_failures(tmp_path, [outcome("done")]) is None
    assert not path.exists()


def test_failures_are_found_from_another_folder(tmp_path, monkeypatch):
    failed = outcome("failed", failures=[Failure("", "damaged", "SlideError")])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        report.write_failures(tmp_path, [failed])
    both = [(str(tmp_path / name / "failed.svs"), "") for name in ("one", "two")]
    assert report.read_failures(tmp_path) == both
    report.write_failures(tmp_path, [outcome("done"), Outcome(Path("failed.svs"), "done")])
    assert report.read_failures(tmp_path) == both[:1]  # that of the other slide stays
    with (tmp_path / "failures.csv").open("a", encoding="utf-8") as stream:
        stream.write("old.svs,,SlideError,of an earlier version\n")
    assert report.read_failures(tmp_path)[1] == (str(tmp_path / "two" / "old.svs"), "")


def test_the_summary_names_every_input_and_its_status(tmp_path):
    many = [Failure(f"{n}.png", "not an image") for n in range(8)]
    outcomes = [
        outcome("done", rows=1200, file=tmp_path / "a.h5", failures=many),
        outcome("empty"),
        outcome("failed"),
        outcome("unreached"),
    ]
    text = report.summary(
        outcomes, report.About("small", tmp_path), failures=tmp_path / "failures.csv"
    )
    for word in (
        "1,200 embeddings",
        "no tissue found",
        "failed.svs: failed",
        "not reached",
        "and 3 more",
        "read_features",
        "failures.csv",
    ):
        assert word in text, word


def test_progress_is_a_line_now_and_then_away_from_a_terminal(capsys):
    with Meter("slide", line_seconds=0) as meter:
        meter(100, 1000)
        for done in range(101, 200):
            meter(done, 1000)
    text = capsys.readouterr().err
    assert "resuming after 100 of 1,000" in text
    assert "199 of 1,000 tiles" in text
    assert " left" in text
    with Meter("slide") as meter:
        for done in range(50):
            meter(done, 50)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verb", ["picture", "explore", "info", "demo", "cache"])
def test_no_message_repeats_the_secrets_of_a_url(capsys, verb):
    assert run([verb, "https://user:word@host.example/a.h5?sig=SECRET"]) != 0
    said = "".join(capsys.readouterr())
    assert "host.example/a.h5" in said
    assert "SECRET" not in said
    assert "word@" not in said

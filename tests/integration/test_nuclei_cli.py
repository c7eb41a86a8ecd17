"""`pathencoder nuclei` from end to end, in this process and (once) as a command."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from synthetic_nuclei import tissue

from pathencoder.cli.main import run
from pathencoder.locks import Lock

pytestmark = pytest.mark.full


def picture(path, **settings):
    image, labels, _ = tissue((120, 150), nuclei=10, **settings)
    Image.fromarray(np.kron(image, np.ones((2, 2, 1), np.uint8))).save(path)
    return labels


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_images_to_files(tmp_path, capsys):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", stain="ihc", positive=0.5)
    out = tmp_path / "out"
    assert (
        run(
            [
                "nuclei",
                str(tmp_path / "a.png"),
                str(tmp_path / "b.png"),
                "--out",
                str(out),
                "--mpp",
                "0.25",
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "10 nuclei" in text
    assert "positive" in text
    for name in "ab":
        labels = read(out / f"{name}.labels.png")
        assert labels.shape == (240, 300)
        assert labels.max() == 10
        assert len(json.loads((out / f"{name}.geojson").read_text())["features"]) == 10
        assert len(list(csv.DictReader((out / f"{name}.csv").read_text().splitlines()))) == 10
        assert read(out / f"{name}.overlay.png").shape == (240, 300, 3)


def test_an_input_of_another_process_is_left_to_it(tmp_path, capsys):
    a, b, out = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "out"
    picture(a)
    picture(b)
    out.mkdir()
    words = ["nuclei", str(a), str(b), "--out", str(out), "--mpp", "0.25"]
    theirs = Lock(out / ".a.lock", "", between_machines=True)
    try:
        assert run(words) == 0
        text = capsys.readouterr().out
        assert f"{a}: left to another process" in text
        assert (out / "b.geojson").exists()
        assert not (out / "a.geojson").exists()
    finally:
        theirs.release()
    assert run(words) == 0
    assert (out / "a.geojson").exists()
    assert not [file.name for file in out.iterdir() if file.name.startswith(".")]


def test_a_bad_file_does_not_stop_the_rest(tmp_path, capsys):
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    rng = np.random.default_rng(0)
    Image.fromarray((rng.random((90, 90, 3)) > 0.9).astype(np.uint8) * 120).save(
        tmp_path / "dark.png"
    )
    out = tmp_path / "out"
    assert run(["nuclei", str(tmp_path), "--out", str(out), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [i["status"] for i in found["inputs"]] == ["failed", "failed", "done"]
    rows = list(csv.reader((out / "failures.csv").read_text().splitlines()))
    assert "not an image" in rows[1][3]
    assert "fluorescence" in rows[2][3]
    assert ["3 images unknown: 0.25 assumed, the usual" in n for n in found["notes"]] == [True]


def test_results_in_a_folder_are_not_taken_for_images(tmp_path):
    picture(tmp_path / "a.png")
    for _ in range(2):
        assert run(["nuclei", str(tmp_path), "--out", str(tmp_path), "--mpp", "0.25"]) == 0
    assert len(list(tmp_path.glob("*.labels.png"))) == 1


def test_the_same_command_resumes(tmp_path, monkeypatch, capsys):
    from pathencoder.nuclei import segment

    for name in "ab":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    command = ["nuclei", str(tmp_path), "--out", str(tmp_path / "out"), "--mpp", "0.25", "--json"]
    assert run([*command]) == 3
    (tmp_path / "out" / "b.geojson").unlink()  # as if it had been stopped there
    real, seen = segment.segment_nuclei, []
    monkeypatch.setattr(
        segment,
        "segment_nuclei",
        lambda image, **more: seen.append(image.shape) or real(image, **more),
    )
    capsys.readouterr()
    assert run([*command]) == 3
    found = json.loads(capsys.readouterr().out)["inputs"]
    assert [(i["status"], i["nuclei"]) for i in found] == [
        ("before", 10),
        ("done", 10),
        ("failed", 0),
    ]
    assert len(seen) == 1
    assert run([*command[:-2], "0.3", "--json"]) == 3  # other settings: nothing of the old counts
    assert len(seen) == 3
    picture(tmp_path / "a.png", seed=4)  # another image of the same name
    assert run([*command[:-2], "0.3", "--json"]) == 3
    assert len(seen) == 4


def test_a_slide_is_done_by_regions_and_no_nucleus_counts_twice(tmp_path, monkeypatch, capsys):
    from small_slides import write_tiff

    from pathencoder.nuclei import regions

    image, labels, _ = tissue((500, 900), nuclei=150, radius=7)
    whole = np.full((500, 1400, 3), 255, np.uint8)
    whole[:, :900] = image
    write_tiff(tmp_path / "slide.tif", whole, mpp=0.5)
    monkeypatch.setattr(regions, "REGION", 300)
    monkeypatch.setattr(regions, "_OVERLAP", 60)
    out = tmp_path / "out"
    assert (
        run(
            [
                "nuclei",
                str(tmp_path / "slide.tif"),
                "--out",
                str(out),
                "--mpp",
                "0.5",
                "--stain",
                "he",
                "--json",
            ]
        )
        == 0
    )
    (found,) = json.loads(capsys.readouterr().out)["inputs"]
    # of ten: glass is left out, but for the border of the tissue
    assert len(found["results"]) in (6, 8)
    assert (
        sum(r["nuclei"] for r in found["results"])
        == found["nuclei"]
        == pytest.approx(labels.max(), abs=2)
    )
    rows = [r for f in out.glob("*.csv") for r in csv.DictReader(f.read_text().splitlines())]
    truth = np.array(
        [np.mean(np.nonzero(labels == n), 1)[::-1] for n in range(1, labels.max() + 1)]
    )
    from pathencoder import metrics

    scores = metrics.detection_scores(truth, [(float(r["x"]), float(r["y"])) for r in rows], 5)
    assert scores.precision > 0.97
    assert scores.recall > 0.97


def test_a_slide_that_cannot_be_read_fails_alone(tmp_path, capsys):
    picture(tmp_path / "good.png")
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    command = [
        "nuclei",
        str(tmp_path / "bad.svs"),
        str(tmp_path / "good.png"),
        "--out",
        str(tmp_path / "out"),
        "--mpp",
        "0.25",
        "--json",
    ]
    assert run(command) == 3
    assert [i["status"] for i in json.loads(capsys.readouterr().out)["inputs"]] == [
        "failed",
        "done",
    ]


def test_adapt_with_fewer_images_than_a_batch(tmp_path, monkeypatch, capsys):
    from pathencoder.nuclei.adapt import train

    short = train.Recipe(rounds=(6, 6), batch=3, crop=64)
    monkeypatch.setattr(train, "Recipe", lambda: short)
    picture(tmp_path / "a.png")
    out = tmp_path / "out"
    assert (
        run(["nuclei", str(tmp_path / "a.png"), "--out", str(out), "--mpp", "0.25", "--adapt"]) == 0
    )
    assert (out / "network" / "config.json").exists()
    text = capsys.readouterr().err
    assert "adapted network saved" in text
    assert "resuming" not in text
    monkeypatch.setattr(train, "train", None)
    # not trained twice
    assert (
        run(["nuclei", str(tmp_path / "a.png"), "--out", str(out), "--mpp", "0.25", "--adapt"]) == 0
    )
    assert "adapted before" in capsys.readouterr().err
    again = tmp_path / "again"
    assert (
        run(
            [
                "nuclei",
                str(tmp_path / "a.png"),
                "--out",
                str(again),
                "--mpp",
                "0.25",
                "--network",
                str(out / "network"),
            ]
        )
        == 0
    )
    first, second = (read(folder / "a.labels.png") for folder in (out, again))
    assert (first == second).all()


def test_adapt_without_tissue_is_refused(tmp_path, capsys):
    Image.new("RGB", (100, 100), "white").save(tmp_path / "blank.png")
    assert (
        run(["nuclei", str(tmp_path / "blank.png"), "--out", str(tmp_path / "out"), "--adapt"]) == 2
    )
    assert "at least one image with tissue" in capsys.readouterr().err


def test_a_folder_without_a_network_is_refused(tmp_path, capsys):
    picture(tmp_path / "a.png")
    assert (
        run(
            [
                "nuclei",
                str(tmp_path / "a.png"),
                "--out",
                str(tmp_path / "out"),
                "--network",
                str(tmp_path),
            ]
        )
        == 2
    )
    assert "holds no nuclei network" in capsys.readouterr().err


def test_help_as_a_command():
    code = "import sys; from pathencoder.cli.main import run; sys.exit(run(['nuclei', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--adapt" in done.stdout

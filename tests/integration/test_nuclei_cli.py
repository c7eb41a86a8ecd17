"""`pathencoder nuclei` from end to end, in this process and (once) as a command."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathencoder.cli.main import run

pytestmark = pytest.mark.full
pytest.importorskip("skimage")
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from synthetic_nuclei import tissue  # noqa: E402


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
    assert run(["nuclei", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", str(out), "--mpp", "0.25"]) == 0
    said = capsys.readouterr().out
    assert "10 nuclei" in said
    assert "positive" in said
    for name in "ab":
        labels = read(out / f"{name}.labels.png")
        assert labels.shape == (240, 300)
        assert labels.max() == 10
        assert len(json.loads((out / f"{name}.geojson").read_text())["features"]) == 10
        assert len(list(csv.DictReader((out / f"{name}.csv").read_text().splitlines()))) == 10
        assert read(out / f"{name}.overlay.png").shape == (240, 300, 3)


def test_a_bad_file_does_not_stop_the_rest(tmp_path, capsys):
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    rng = np.random.default_rng(0)
    Image.fromarray((rng.random((90, 90, 3)) > 0.9).astype(np.uint8) * 120).save(tmp_path / "dark.png")
    out = tmp_path / "out"
    assert run(["nuclei", str(tmp_path), "--out", str(out), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert [i["fate"] for i in told["inputs"]] == ["failed", "failed", "done"]
    rows = list(csv.reader((out / "failures.csv").read_text().splitlines()))
    assert "not an image" in rows[1][3]
    assert "fluorescence" in rows[2][3]
    assert any("taken as 0.25" in n for n in told["inputs"][2]["notes"])


def test_results_in_a_folder_are_not_taken_for_images(tmp_path):
    picture(tmp_path / "a.png")
    for _ in range(2):
        assert run(["nuclei", str(tmp_path), "--out", str(tmp_path), "--mpp", "0.25"]) == 0
    assert len(list(tmp_path.glob("*.labels.png"))) == 1


def test_two_files_of_one_name_keep_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        picture(tmp_path / folder / "a.png")
    out = tmp_path / "out"
    assert run(["nuclei", str(tmp_path / "x"), str(tmp_path / "y"), "--out", str(out), "--mpp", "0.25"]) == 0
    assert sorted(p.name for p in out.glob("*.csv")) == ["x-a-png.csv", "y-a-png.csv"]


def test_adapt_with_fewer_images_than_a_batch(tmp_path, monkeypatch, capsys):
    from pathencoder.nuclei import recipe

    short = recipe.Recipe(rounds=(6, 6), batch=3, crop=64)
    monkeypatch.setattr(recipe, "Recipe", lambda: short)
    picture(tmp_path / "a.png")
    out = tmp_path / "out"
    assert run(["nuclei", str(tmp_path / "a.png"), "--out", str(out), "--mpp", "0.25", "--adapt"]) == 0
    assert (out / "network" / "config.json").exists()
    assert "adapted network kept" in capsys.readouterr().err
    again = tmp_path / "again"
    assert run(["nuclei", str(tmp_path / "a.png"), "--out", str(again), "--mpp", "0.25", "--network", str(out / "network")]) == 0
    first, second = (read(folder / "a.labels.png") for folder in (out, again))
    assert (first == second).all()


def test_adapt_without_tissue_says_so(tmp_path, capsys):
    Image.new("RGB", (100, 100), "white").save(tmp_path / "blank.png")
    assert run(["nuclei", str(tmp_path / "blank.png"), "--out", str(tmp_path / "out"), "--adapt"]) == 2
    assert "at least one image with tissue" in capsys.readouterr().err


def test_a_folder_without_a_network_is_refused(tmp_path, capsys):
    picture(tmp_path / "a.png")
    assert run(["nuclei", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--network", str(tmp_path)]) == 2
    assert "holds no nuclei network" in capsys.readouterr().err


def test_help_as_a_command():
    code = "import sys; from pathencoder.cli.main import run; sys.exit(run(['nuclei', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--adapt" in done.stdout

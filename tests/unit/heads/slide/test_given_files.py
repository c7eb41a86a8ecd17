"""What heads of slides say of the files that they are given."""

import json
import logging

import pytest
import small_bags
from PIL import Image
from sklearn.linear_model import LogisticRegression  # noqa: F401  the extra that fitting needs

import pathencoder
from pathencoder.cli.main import run
from pathencoder.errors import StoreError

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Feature files of two slides a patient, and a head on them whose bags are patients."""
    root = tmp_path_factory.mktemp("slides")
    small_bags.folder(root, patients=6, each=2)
    head = pathencoder.fit(
        "slide-mean", None, root / "slides.csv", features=root / "features", bag="patient",
        hidden=16, epochs=3, seeds=1, device="cpu", progress=False,
    )  # fmt: skip
    head.save(root / "head")
    return root


def test_slides_of_patients_one_by_one_are_said(place, caplog):
    head = pathencoder.load_head(place / "head")
    files = sorted((place / "features").glob("S0_*.h5"))
    with caplog.at_level(logging.WARNING, "pathencoder"):
        together = head.predict(files, patients=["P0", "P0"])
        assert not caplog.records
        alone = head.predict(files)
    (record,) = caplog.records
    assert "predicts each file by itself" in record.getMessage()
    assert (len(together), len(alone)) == (1, 2)


def test_the_command_says_it_once(place, tmp_path, capsys, caplog):
    with caplog.at_level(logging.WARNING, "pathencoder"):
        given = ["predict", str(place / "head"), str(place / "features"), "--out"]
        assert run([*given, str(tmp_path / "out"), "--json"]) == 0
    (done,) = json.loads(capsys.readouterr().out)["inputs"]
    (note,) = [note for note in done["notes"] if "by itself" in note]
    assert "patients=[...]" in note
    assert not caplog.records
    rows = (tmp_path / "out/features.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:3]] == ["S0_0", "S0_1"]


@pytest.mark.parametrize("name", ["tile.png", "slide.svs", "scan.tif"])
def test_an_image_has_to_be_encoded_first(place, tmp_path, name, capsys):
    file = tmp_path / name
    Image.new("RGB", (8, 8)).save(file, "tiff" if name.endswith("tif") else "png")
    with pytest.raises(StoreError, match="no feature file: encode it first") as raised:
        pathencoder.load_head(place / "head").predict(file)
    assert "--overwrite" not in str(raised.value)
    assert run(["predict", str(place / "head"), str(file), "--out", str(tmp_path / "out")]) == 1
    assert "encode it first" in capsys.readouterr().out

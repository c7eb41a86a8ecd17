"""The protocol of eva on made-up copies: its parts, its head, and which rows stand beside."""

import dataclasses

import numpy as np
import pytest
import small_encoders
import small_sets
from click.testing import CliRunner

from pathencoder.errors import ConfigError
from training import evaluate
from training.evaluation.eva import head, sets
from training.evaluation.eva.command import as_eva_reads, not_comparable
from training.evaluation.eva.head import Part
from training.evaluation.report_file import read_report

pytestmark = pytest.mark.full


def test_bach_has_the_parts_of_whole_patients(tmp_path):
    found = sets.read_bach(small_sets.bach(tmp_path, each=12))
    val = [i for i, part in enumerate(found.parts) if part == "val"]
    assert val == [41, 42, 43, 44, 45, 46, 47]
    assert found.labels[0] == "Benign"  # the order of classes by name
    assert found.labels[41] == "Normal"
    assert found.images[41].name == "n006.tif"


def test_breakhis_has_four_classes_at_40x(tmp_path):
    found = sets.read_breakhis(small_sets.breakhis(tmp_path))
    assert set(found.labels) == {"TA", "MC", "F", "DC"}
    assert all("-40-" in image.name for image in found.images)
    assert set(found.parts) == {"train"}
    assert sets._BREAKHIS_VAL.count("16184CD") == 1
    assert len(set(sets._BREAKHIS_VAL)) == 14


def gleason(root):
    for n, name in enumerate(("ZT111_1_A_1_2_0", "ZT76_3_A_1_2_1", "ZT204_4_B_0_0_2")):
        small_sets.picture(root / f"train_validation_patches_750/x/{name}.jpg", n)
    small_sets.picture(root / "test_patches_750/patho_1/y/ZT80_38_A_1_2_3.jpg", 9)
    return root


def test_gleason_is_divided_by_microarray(tmp_path):
    found = sets.read_gleason(gleason(tmp_path))
    by_part = dict(zip(found.parts, found.labels, strict=True))
    assert by_part == {"test": "gleason_5", "train": "gleason_4", "val": "gleason_3"}


def test_another_copy_of_gleason_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="train_validation_patches_750 is missing"):
        sets.read_gleason(tmp_path)
    small_sets.picture(gleason(tmp_path) / "train_validation_patches_750/x/ZT9_1_A_1_2_0.jpg")
    with pytest.raises(ConfigError, match="the microarray ZT9 is not one"):
        sets.read_gleason(tmp_path)


def test_mhist_crc_and_pcam_have_their_parts(tmp_path):
    mhist = sets.read_mhist(small_sets.mhist(tmp_path / "mhist"))
    assert mhist.counts() == {"train": 4, "val": 2}
    crc = sets.read_crc(small_sets.nct_crc(tmp_path / "crc"))
    assert crc.counts() == {"train": 18, "val": 18}
    pcam = sets.read_pcam(small_sets.pcam(tmp_path / "pcam"))
    assert pcam.counts() == {"train": 8, "val": 8, "test": 8}
    assert [f.suffix for f in pcam.files] == [".h5"] * 6


def two_clouds(n=200, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = (rng.normal(size=(n, 6)) + 40 * np.eye(6)[y]).astype(np.float32)
    return Part(x, y)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_learns_and_reports_the_best_epoch(classes):
    parts = {n: two_clouds(classes=classes, seed=i) for i, n in enumerate(("train", "val", "test"))}
    found = head.fit(parts, classes, patience=1_000, seed=0, steps=400)
    assert found.keys() == {"val", "test"}
    assert found["val"] > 0.95
    assert found["test"] > 0.9
    assert found == head.fit(parts, classes, patience=1_000, seed=0, steps=400)


def test_val_may_be_looked_at_every_few_epochs(monkeypatch):
    parts = {n: two_clouds(seed=i) for i, n in enumerate(("train", "val"))}
    found = iter([0.5, 0.50004, 0.50008, 0.6, 0.6, 0.6, 0.6])
    asked = []
    monkeypatch.setattr(head, "_balanced", lambda h, part: asked.append(part) or next(found))
    steps = []
    monkeypatch.setattr(head, "_loss", lambda *x: steps.append(0) or x[0].sum())
    head.fit(parts, 2, patience=2, seed=0, every=3, least=1e-4)
    # .50004 and .50008 are better by less than `least`: two looks without a better figure
    assert len(asked) == 3 + 1
    assert len(steps) == 9


def test_a_fit_ends_after_epochs_without_a_better_one(monkeypatch):
    parts = {n: two_clouds(seed=i) for i, n in enumerate(("train", "val"))}
    asked = []
    monkeypatch.setattr(head, "_balanced", lambda h, part: asked.append(part) or 0.5)
    head.fit(parts, 2, patience=4, seed=0)
    assert len(asked) == 1 + 4 + 1  # the first is best, four are not better, the figure


def test_tiles_are_cropped_as_eva_does():
    spec = as_eva_reads(small_encoders.encoder("cnn")).spec
    assert (spec.input_size, spec.resize, spec.resize_size) == (224, "shortest", 224)
    assert spec.interpolation == "bilinear"
    assert spec.mean == small_encoders.spec("cnn").mean


def test_published_rows_stand_beside_whole_copies_and_five_runs_alone(tmp_path):
    images = sets.read_mhist(small_sets.mhist(tmp_path))
    s = sets.BY_NAME["mhist"]
    assert "4 train, 2 val images, in eva 2,175 train, 977 val" in not_comparable(s, images, 5)[0]
    whole = dataclasses.replace(s, expected={"train": 4, "val": 2})
    assert not_comparable(whole, images, 5) == []
    assert "3 runs, in eva 5" in not_comparable(whole, images, 3)[0]


def test_the_command_measures_what_it_can(tmp_path, monkeypatch):
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "enc")
    small_sets.mhist(tmp_path / "mhist")
    whole = dataclasses.replace(sets.BY_NAME["mhist"], expected={"train": 4, "val": 2}, patience=2)
    monkeypatch.setitem(sets.BY_NAME, "mhist", whole)
    arguments = ["eva", str(tmp_path / "enc"), "--set", f"mhist={tmp_path / 'mhist'}"]
    arguments += ["--set", f"bach={tmp_path / 'mhist'}", "--out", str(tmp_path / "out")]
    arguments += ["--imagenet", str(tmp_path / "none")]
    done = CliRunner().invoke(evaluate.main, arguments)
    assert done.exit_code == 3, done.output
    report = read_report(tmp_path / "out/evaluation.json")
    (mine,) = report.find(encoder="enc")
    assert (mine.verb, mine.set, mine.part, mine.seeds, mine.n) == ("eva", "mhist", "val", 5, 2)
    assert "does not hold BACH" in report.absent[-1].reason
    assert "| mahmood_uni2_h (published) | 0.824 |" in done.output


def test_without_sets_it_says_where_they_are_had():
    done = CliRunner().invoke(evaluate.main, ["eva"])
    assert done.exit_code == 0
    assert "https://zenodo.org/records/3632035" in done.output
    assert "camelyon16_small: 1,000 tiles a slide" in done.output


def test_a_wrong_set_is_named():
    done = CliRunner().invoke(evaluate.main, ["eva", "default", "--set", "consep=x"])
    assert done.exit_code == 1
    assert "NAME=FOLDER, with one of bach" in done.output

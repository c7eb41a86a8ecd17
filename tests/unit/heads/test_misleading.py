"""What would mislead without an error on the way: NaN, copies, too few images, changed files."""

import json

import numpy as np
import pytest
import small_encoders
import small_tiles

import pathencoder
from pathencoder.errors import ConfigError, StoreError
from pathencoder.heads import store
from pathencoder.heads.embed import Embedded

pytestmark = pytest.mark.full


def fit(data, kind="linear", **settings):
    settings.setdefault("groups", small_tiles.GROUPS)
    encoder = small_encoders.shared("cnn")
    return pathencoder.fit(kind, encoder, data, progress=False, **settings)


def one_of_a_class(tiles):
    """Images and labels, one class of which has a single image: no folds are possible."""
    images = [*sorted((tiles / "benign").iterdir()), min((tiles / "malignant").iterdir())]
    return {"data": images, "labels": ["a"] * 12 + ["b"], "groups": list(range(13))}


@pytest.mark.parametrize("data", [None, one_of_a_class])
def test_a_network_that_diverges_is_refused(tiles, data):
    given = {"data": tiles} if data is None else {**data(tiles), "epochs": 3}
    with pytest.raises(ConfigError, match=r"diverged .* lower learning_rate="):
        fit(kind="mlp", learning_rate=1e30, **given)


def test_embeddings_that_are_not_finite_are_not_evaluated(tiles):
    head = fit(tiles)
    data = pathencoder.heads.data.read.read_dataset(tiles)
    rows = np.full((len(data), head.record.dim), np.nan, np.float32)
    with pytest.raises(ConfigError, match="the predictions of 24 of 24 images are NaN"):
        head.evaluate_rows(data, Embedded(rows, [b""] * len(data), {}, 0), "test")


def test_what_a_fit_without_folds_noted_is_kept(tiles, tmp_path):
    given = one_of_a_class(tiles)
    (tiles / "bad.png").write_bytes(b"no image")
    given["data"].append(tiles / "bad.png")
    given["labels"].append("a")
    head = fit(**{**given, "groups": list(range(14))}, c=0.1, on_error="skip")
    assert head.report is None
    assert "1 images that cannot be read were left out" in head.notes[0]
    assert "nothing was evaluated on folds or calibrated" in head.notes[-1]
    head.save(tmp_path / "head")
    assert pathencoder.load_head(tmp_path / "head").notes == head.notes
    assert "Note: 1 images that cannot be read" in (tmp_path / "head/README.md").read_text()


def test_the_threshold_is_read_on_the_held_out_part_too(tmp_path):
    small_tiles.folder(tmp_path / "d/train")
    small_tiles.folder(tmp_path / "d/validation", patients=2)
    groups = lambda path: f"{path.parts[-3]} {path.name[:2]}"  # noqa: E731
    head = fit(tmp_path / "d", groups=groups, max_error=0.1, evaluate="validation")
    assert not any("were not read" in note for note in head.report.notes)
    assert head.held_out.abstention.threshold == head.threshold
    assert (head.held_out.abstention.images, head.held_out.abstention.error) == (8, 0)
    # no mistake among eight images does not show an error below .1
    assert head.held_out.abstention.most == pytest.approx(0.253, abs=0.001)
    assert "with 8 images, up to 25.3% is possible" in head.held_out.text()
    assert head.evaluate(tmp_path / "d", part="valid", progress=False).part == "val"


def test_copies_of_an_image_stay_together(tiles):
    images = [path for path in sorted(tiles.rglob("*.png")) for _ in range(2)]
    copies = [*images[::2], *images[1::2]]
    for number, path in enumerate(copies[24:]):
        copies[24 + number] = path.with_name(f"copy_{path.name}")
        copies[24 + number].write_bytes(path.read_bytes())
    rng = np.random.default_rng(0)
    noise = [str(label) for label in rng.permutation([0, 1] * 12)] * 2  # labels that mean nothing
    report = fit(copies, "knn", labels=noise, groups=None, k=1).report
    assert "24 images have the content of another one (copies stay together" in report.text()
    assert report.balanced_accuracy.value < 0.8


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("knn", {"k": 24}, "k=24: of 24 images"),
        ("linear", {"c": "abc"}, "c='abc': a number above 0"),
        ("linear", {"c": float("inf")}, "c=inf: a number above 0"),
        ("linear", {"c": True}, "c=True: a number above 0"),
        ("prototypes", {"shots": True}, "shots=True: a whole number"),
        ("mlp", {"learning_rate": float("nan")}, "learning_rate=nan: above 0"),
        ("linear", {"class_weight": {"benign": "x", "malignant": 1}}, "numbers above 0"),
    ],
)
def test_options_that_do_not_fit(tiles, kind, settings, words):
    with pytest.raises(ConfigError, match=words):
        fit(tiles, kind, **settings)


def test_prototypes_say_that_weights_change_nothing(tiles):
    assert "prototypes have none" in fit(tiles, "prototypes", class_weight=None).report.text()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("classes", ["a", "b", "c"], "3 names, 3 of them different, for 2 scores"),
        ("classes", ["x", "x"], "2 names, 1 of them different, for 2 scores"),
        ("classes", "xy", "a list of names"),
        ("temperature", 0, "a number above 0"),
        ("temperature", -1.0, "a number above 0"),
        ("temperature", float("nan"), "a number above 0"),
        ("threshold", "high", "a number, or null"),
    ],
)
def test_a_config_that_was_changed(tiles, tmp_path, name, value, words):
    fit(tiles).save(tmp_path / "head")
    file = tmp_path / "head/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(ConfigError, match=f"incomplete or was changed .*{words}"):
        pathencoder.load_head(tmp_path / "head")


def test_damaged_files_of_a_head_name_the_head(tiles, tmp_path):
    fit(tiles).save(tmp_path / "head")
    (tmp_path / "head/report.json").write_text("{")
    with pytest.raises(ConfigError, match="save or download the head again"):
        pathencoder.load_head(tmp_path / "head")


def test_a_disk_that_is_full(tiles, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(StoreError, match=r"No space left on device\. Free space"):
        fit(tiles).save(tmp_path / "head")
    assert not store.is_head(tmp_path / "head")

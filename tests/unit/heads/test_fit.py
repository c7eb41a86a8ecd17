"""One call from labelled images to a head: figures, refusals, and files that predict the same."""

import json

import numpy as np
import pytest
import small_encoders
import small_tiles
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import pathencoder
from pathencoder.encoder import Encoder
from pathencoder.errors import ChecksumError, ConfigError, HeadMismatch, ImageError, StoreError
from pathencoder.heads import classify, kinds, store

pytestmark = pytest.mark.full


def fit(data, kind="linear", **settings):
    encoder = settings.pop("encoder", None) or small_encoders.shared("cnn")
    settings.setdefault("groups", small_tiles.GROUPS)
    return pathencoder.fit(kind, encoder, data, progress=False, **settings)


@pytest.fixture
def head(tiles):
    return fit(tiles)


def test_tiles_of_two_colours_are_told_apart(head, tiles):
    report = head.report
    assert report.balanced_accuracy.value == 1
    assert (report.balanced_accuracy.low, report.auroc.value) == (1, 1)
    assert report.confusion == ((12, 0), (0, 12))
    assert (report.groups, report.part) == (6, "5 folds by group")
    found = head.predict(tiles, progress=False)
    assert found.labels == [key.split("/")[0] for key in found.keys]
    assert not found.abstained.any()
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    assert "balanced accuracy  1.000 [1.000, 1.000]" in report.text()


def test_a_second_fit_encodes_nothing(tiles, head, monkeypatch):
    def none(self, images, **_):
        raise AssertionError(f"{len(images)} images are encoded again")

    monkeypatch.setattr(Encoder, "results", none)
    again = fit(tiles)
    np.testing.assert_array_equal(again.model.weight, head.model.weight)


def test_the_coefficients_are_those_of_scikit_learn(tiles):
    encoder = small_encoders.shared("cnn")
    head = fit(tiles, c=0.01, calibrate=False)
    rows = encoder.encode(tiles, progress=False).astype(np.float64)
    x = StandardScaler().fit_transform(rows)
    y = np.repeat([0, 1], 12)
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=400, tol=1e-3).fit(x, y)
    found = head.predict_rows(rows).probabilities
    np.testing.assert_allclose(found, model.predict_proba(x), atol=1e-6)


def test_three_classes_and_images_in_memory():
    names = ("benign", "malignant", "stroma")
    images = [small_tiles.tile(c, 50 * i + n) for i, c in enumerate(names) for n in range(8)]
    labels = np.repeat(names, 8)
    head = fit(images, labels=labels, groups=list(range(8)) * 3)
    assert head.classes == names
    assert head.report.auroc.value > 0.95
    assert head.predict(np.stack(images), progress=False).labels == labels.tolist()


def test_without_groups_no_interval_is_claimed(tiles):
    report = fit(tiles, groups=None).report
    assert report.groups is None
    assert report.balanced_accuracy.low is None
    assert any("no groups" in note for note in report.notes)
    assert "[" not in report.text().split("AUROC")[1].splitlines()[0]


def test_held_out_parts_are_read_only_when_named(tmp_path):
    small_tiles.folder(tmp_path / "d/train")
    small_tiles.folder(tmp_path / "d/test", patients=2)
    groups = lambda path: f"{path.parts[-3]} {path.name[:2]}"  # noqa: E731
    head = fit(tmp_path / "d", groups=groups)
    assert head.held_out is None
    assert "8 images of the part 'test' were not read" in " ".join(head.report.notes)
    head = fit(tmp_path / "d", groups=groups, evaluate="test")
    assert (sum(head.held_out.images), head.held_out.part) == (8, "test")
    # the made-up tiles of both parts have the same seeds
    assert "8 of these images were fitted on too" in " ".join(head.held_out.notes)
    with pytest.raises(ConfigError, match="no part 'val'; it has test, train"):
        fit(tmp_path / "d", groups=groups, evaluate="val")


def test_a_class_of_one_group(tiles, caplog):
    paths, labels = sorted(tiles.rglob("*.png")), ["a"] * 12 + ["b"] * 12
    groups = [f"P{n % 3}" for n in range(12)] + ["P9"] * 12
    words = r"class 'b' occurs in one group alone \(P9\).* give the settings .* \(c=\)"
    with pytest.raises(ConfigError, match=words):
        fit(paths, labels=labels, groups=groups)
    head = fit(paths, labels=labels, groups=groups, c=0.01)
    assert head.report is None
    assert "nothing was evaluated" in caplog.text
    with pytest.raises(ConfigError, match="max_error= needs predictions on folds"):
        fit(paths, labels=labels, groups=groups, c=0.01, max_error=0.1)


def test_settings_are_chosen_once_where_folds_leave_a_class_one_group(tiles):
    paths, labels = sorted(tiles.rglob("*.png")), ["a"] * 12 + ["b"] * 12
    groups = [f"P{n % 6}" for n in range(12)] + ["P1", "P2"] * 6
    report = fit(paths, labels=labels, groups=groups).report
    assert report.part == "2 folds by group"
    assert "settings were chosen once" in " ".join(report.notes)


def test_given_folds_and_one_without_a_class(tiles):
    paths = sorted(tiles.rglob("*.png"))
    labels, groups = [p.parent.name for p in paths], [p.name[:2] for p in paths]
    fold = [f"fold{int(g[1]) % 2}" for g in groups]
    assert fit(paths, labels=labels, groups=groups, splits=fold).report.part == (
        "2 folds of the data set"
    )
    apart = ["fold0" if label == "benign" else "fold1" for label in labels]
    with pytest.raises(ConfigError, match="class 'benign' occurs in fold0 alone"):
        fit(paths, labels=labels, groups=None, splits=apart)


def test_bad_images_are_all_named_or_left_out(tiles):
    for n in (0, 1):
        (tiles / "benign" / f"P{n}_0.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match="2 of 24 images cannot be read") as caught:
        fit(tiles)
    assert all(f"P{n}_0.png" in str(caught.value) for n in (0, 1))
    report = fit(tiles, on_error="skip").report
    assert report.images == (10, 12)
    assert "2 images that cannot be read were left out" in report.notes[0]


def in_parts(root):
    """Labels, groups and parts of tiles whose last two patients are held out."""
    paths = sorted(root.rglob("*.png"))
    groups = [path.name[:2] for path in paths]
    return paths, {
        "labels": [path.parent.name for path in paths],
        "groups": groups,
        "splits": ["test" if group in ("P4", "P5") else "train" for group in groups],
    }


def test_bad_images_of_the_held_out_part_are_those_of_the_train_part(tiles, monkeypatch):
    paths, given = in_parts(tiles)
    for name in ("P0_0", "P4_0", "P5_0"):
        (tiles / "benign" / f"{name}.png").write_bytes(f"no picture {name}".encode())
    with pytest.raises(ImageError, match="3 of 24 images cannot be read") as caught:
        fit(paths, evaluate="test", **given)
    assert all(f"{name}.png" in str(caught.value) for name in ("P0_0", "P4_0", "P5_0"))
    head = fit(paths, evaluate="test", on_error="skip", **given)
    assert (head.report.images, head.held_out.images) == ((7, 8), (2, 4))
    assert "2 images that cannot be read were left out" in head.held_out.notes[0]
    for path in tiles.glob("*/P[45]_*.png"):
        path.write_bytes(f"no picture {path}".encode())
    monkeypatch.setattr(classify.judge, "chosen", lambda *_: pytest.fail("it was fitted"))
    with pytest.raises(ImageError, match="none of the images of the part 'test' can be read"):
        fit(paths, evaluate="test", on_error="skip", **given)


def test_classes_of_the_held_out_part_alone_are_refused_before_fitting(tiles, monkeypatch):
    paths, given = in_parts(tiles)
    given["labels"][paths.index(tiles / "benign/P5_1.png")] = "stroma"
    monkeypatch.setattr(Encoder, "results", lambda *_, **__: pytest.fail("it was encoded"))
    words = "the train part has the classes benign, malignant, not stroma, which the part 'test'"
    with pytest.raises(ConfigError, match=words):
        fit(paths, evaluate="test", **given)


def test_classes_that_are_lost_with_bad_images_are_refused_too(tiles):
    paths, given = in_parts(tiles)
    for name in ("P0_0", "P5_1"):
        given["labels"][paths.index(tiles / f"benign/{name}.png")] = "stroma"
    (tiles / "benign/P0_0.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="no images of stroma are left in the train part"):
        fit(paths, evaluate="test", on_error="skip", **given)


def test_weights_of_a_class_whose_images_are_all_bad_move_to_no_other(tiles):
    for path in (tiles / "benign").iterdir():
        path.write_bytes(f"no picture {path}".encode())
    small_tiles.folder(tiles, labels=("stroma",))
    weights = {"benign": 1, "malignant": 10, "stroma": 1}
    with pytest.raises(ConfigError, match="no images of benign are left"):
        fit(tiles, class_weight=weights, on_error="skip")


def test_an_image_with_two_labels_is_noted(tiles):
    (tiles / "benign" / "P0_9.png").write_bytes((tiles / "malignant" / "P0_0.png").read_bytes())
    notes = " ".join(fit(tiles).report.notes)
    assert "1 images have the content of another one with another label" in notes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "linaer"}, "Did you mean 'linear'"),
        ({"kind": None}, "head=None: one of linear, mlp"),
        ({"k": 3}, "the head 'linear' has c"),
        ({"c": -1}, "c=-1: a number above 0"),
        ({"max_error": 2}, "max_error=2"),
        ({"on_error": "nan"}, "on_error='nan'"),
        ({"output": "dense"}, "one vector per image"),
        ({"mpp": "x"}, "mpp"),
        ({"class_weight": {"benign": 1}}, "a weight for each of benign, malignant"),
        ({"class_weight": {"benign": 1, "malignant": -1}}, "above 0"),
    ],
)
def test_settings_that_do_not_fit(tiles, settings, words):
    with pytest.raises(ConfigError, match=words):
        fit(tiles, **settings)


@pytest.mark.parametrize("kind", kinds.names("classifier"))
def test_a_saved_head_predicts_bitwise_the_same(kind, tiles, tmp_path):
    head = fit(tiles, kind, max_error=0.3, **({"epochs": 20} if kind == "mlp" else {}))
    assert head.report.balanced_accuracy.value > 0.7
    rows = small_encoders.shared("cnn").encode(tiles, progress=False)
    head.save(tmp_path / "head")
    loaded = pathencoder.load_head(tmp_path / "head", encoder=small_encoders.shared("cnn"))
    assert loaded.predict_rows(rows).probabilities.tobytes() == (
        head.predict_rows(rows).probabilities.tobytes()
    )
    assert loaded.report == head.report
    assert (loaded.classes, loaded.settings) == (head.classes, head.settings)
    assert loaded.threshold == head.threshold > 0.3
    loaded.save(tmp_path / "again")
    for name in ("model.safetensors", "report.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "head" / name).read_bytes()
    modes = {(tmp_path / "head" / file).stat().st_mode for file in store.FILES}
    assert len(modes) == 1


def test_a_head_refuses_another_encoder(head, tmp_path):
    head.save(tmp_path / "head")
    with pytest.raises(HeadMismatch, match=r"fitted on small-cnn, not on small-vit.*others"):
        pathencoder.load_head(tmp_path / "head", encoder=small_encoders.shared("vit"))
    with pytest.raises(HeadMismatch, match=r"with the scale 0.5, not 0.25"):
        head.use(small_encoders.encoder("cnn", mpp=0.25))
    with pytest.raises(HeadMismatch, match="with the preprocessing"):
        head.use(small_encoders.encoder("cnn", std=(0.1, 0.1, 0.1)))
    with pytest.raises(HeadMismatch, match=r"rows \[N, 256\] .* found \[2, 3\]"):
        head.predict_rows(np.zeros((2, 3)))
    loaded = pathencoder.load_head(tmp_path / "head")
    with pytest.raises(HeadMismatch, match=r"cannot be loaded .*neither a public name"):
        loaded.predict(small_tiles.tile("benign", 0))


def test_an_encoder_that_is_trained_later_is_refused(tiles):
    encoder = small_encoders.encoder("cnn", sha256="0" * 64)
    head = fit(tiles, encoder=encoder)
    next(encoder.parameters()).data.add_(0.1)
    encoder.load_state_dict({k: v * 1.01 for k, v in encoder.state_dict().items()})
    with pytest.raises(HeadMismatch, match="changed since they were loaded"):
        head.predict(tiles)


def test_a_moving_average_of_the_weights_is_another_encoder(tiles):
    encoder, other = small_encoders.encoder("cnn"), small_encoders.encoder("cnn")
    head = fit(tiles, encoder=encoder)
    for mine, theirs in zip(encoder.parameters(), other.parameters(), strict=True):
        mine.data.lerp_(1.5 * theirs.data, 0.5)
    with pytest.raises(HeadMismatch, match="its weights are others"):
        head.predict(tiles)
    again = fit(tiles, encoder=encoder).model.scaling.mean
    np.testing.assert_array_equal(
        again, fit(tiles, encoder=encoder, cache=False).model.scaling.mean
    )
    assert not np.array_equal(again, head.model.scaling.mean)


def test_a_head_loads_its_encoder_from_its_folder(tiles, tmp_path):
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "encoder")
    head = fit(tiles, encoder=tmp_path / "encoder")
    head.save(tmp_path / "head")
    found = pathencoder.load_head(tmp_path / "head").predict(tiles, progress=False)
    np.testing.assert_array_equal(
        found.probabilities, head.predict(tiles, progress=False).probabilities
    )


def test_bad_images_cost_only_their_own_prediction(head, tiles):
    (tiles / "benign" / "P0_0.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="P0_0"):
        head.predict(tiles, progress=False)
    found = head.predict(tiles, progress=False, on_error="nan")
    assert (found.labels[0], found.labels[1]) == ("", "benign")
    assert found.abstained.tolist() == [True] + [False] * 23
    assert list(found.errors) == ["benign/P0_0.png"]


def test_damaged_and_foreign_heads(head, tmp_path):
    folder = tmp_path / "head"
    head.save(folder)
    config = json.loads((folder / "config.json").read_text())
    cases = [
        ({**config, "format_version": 99}, ConfigError, "pip install -U"),
        ({**config, "format": "other"}, ConfigError, "holds no head"),
        ({**config, "sha256": "0"}, ChecksumError, "not the file that was saved"),
        ({**config, "classes": None}, ConfigError, "is incomplete"),
        ({**config, "head": "other"}, ConfigError, "one of linear"),
    ]
    for content, error, words in cases:
        (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(error, match=words):
            pathencoder.load_head(folder)
    with pytest.raises(ConfigError, match="no such folder"):
        pathencoder.load_head("./nothing")
    with pytest.raises(ConfigError, match="not a repository"):
        pathencoder.load_head("nothing")
    small_encoders.shared("cnn").save_pretrained(tmp_path / "encoder")
    with pytest.raises(StoreError, match="not of a head"):
        head.save(tmp_path / "encoder")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/README.md").write_text("mine")
    with pytest.raises(StoreError, match=r"does not hold a head, and its README\.md"):
        head.save(tmp_path / "project")
    assert (tmp_path / "project/README.md").read_text() == "mine"
    with pytest.raises(ConfigError, match="no head but something else"):
        pathencoder.load_head(tmp_path / "encoder")


def test_scales_are_those_of_the_fit(tiles):
    with pytest.raises(ConfigError, match="without their scale"):
        fit(tiles).predict(tiles, mpp=0.25)
    head = fit(tiles, mpp=0.5)
    assert head.record.image_mpp == 0.5
    same = head.predict(tiles, progress=False).probabilities
    np.testing.assert_array_equal(head.predict(tiles, mpp=0.5, progress=False).probabilities, same)


def test_views_are_those_of_the_fit(tiles, head, tmp_path):
    turned = fit(tiles, views=4)
    turned.save(tmp_path / "turned")
    encoder, image = small_encoders.shared("cnn"), small_tiles.tile("benign", 3)
    loaded = pathencoder.load_head(tmp_path / "turned", encoder=encoder)
    for one, views in ((loaded, 4), (head, 1)):
        rows = encoder.encode(image, views=views)
        np.testing.assert_array_equal(
            one.predict(image, progress=False).probabilities, one.predict_rows(rows).probabilities
        )
    with pytest.raises(ConfigError, match="views=2"):
        fit(tiles, views=2)
    with pytest.raises(ConfigError, match="views=4: the head 'abmil'"):
        fit(tiles, "abmil", views=4)


def test_evaluating_later(head, tmp_path):
    other = small_tiles.folder(tmp_path / "other", patients=2, each=1)
    report = head.evaluate(other, groups=small_tiles.GROUPS, progress=False)
    assert (report.images, report.groups, report.part) == ((2, 2), 2, "all images")
    small_tiles.folder(tmp_path / "more", labels=("benign", "stroma"), patients=1)
    with pytest.raises(ConfigError, match="the head knows benign, malignant, not stroma"):
        head.evaluate(tmp_path / "more", progress=False)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "1", True])
def test_a_seed_that_no_library_takes(tiles, seed):
    with pytest.raises(ConfigError, match=r"seed=.*: a whole number from 0 to 4294967295"):
        fit(tiles, seed=seed)

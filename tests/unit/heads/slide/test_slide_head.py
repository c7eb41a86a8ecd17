"""From a table of slides and feature files to a head: figures, refusals, attention, files."""

import json

import numpy as np
import pytest
import small_bags
from sklearn.linear_model import LogisticRegression  # noqa: F401  the extra that fitting needs

import pathencoder
from pathencoder.errors import ConfigError, HeadMismatch, StoreError
from pathencoder.heads.slide import training
from pathencoder.heads.slide.base import Attention

pytestmark = pytest.mark.full

FAST = {"hidden": 16, "learning_rate": 0.01, "seeds": 2, "device": "cpu"}


def fit(root, kind="abmil", **options):
    options = {**FAST, "epochs": 15, "progress": False, "features": root / "features", **options}
    return pathencoder.fit(kind, options.pop("encoder", None), root / "slides.csv", **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("slides")
    small_bags.folder(made, patients=16)
    return made


@pytest.fixture(scope="module")
def head(root):
    return fit(root)


@pytest.mark.parametrize("kind", ["abmil", "slide-mean", "slide-max"])
def test_slides_with_a_few_tumour_tiles_are_found(root, kind, monkeypatch):
    monkeypatch.setattr(training, "_LONGEST", 25)
    head = fit(root, kind, epochs=None, seeds=1)
    report = head.report
    assert report.balanced_accuracy.value > 0.8
    assert report.balanced_accuracy.low is not None
    assert (report.unit, report.groups, sum(report.images)) == ("slides", 16, 16)
    assert report.part == "5 folds by group"
    assert "16 slides of 16 groups" in report.text()
    assert 1 < head.settings["epochs"] <= 25
    found = head.predict(root / "features")
    assert found.keys[:3] == ["S0_0", "S10_0", "S11_0"]
    labels = ["tumour" if int(key[1:-2]) % 2 else "normal" for key in found.keys]
    assert found.labels == labels
    np.testing.assert_allclose(found.probabilities.sum(1), 1)


def test_attention_lies_on_the_tumour_tiles(root):
    head = fit(root, epochs=20, seeds=1)
    coords, weights = head.attention(root / "features/S3_0.h5")
    np.testing.assert_array_equal(coords, small_bags.places(small_bags.TILES))
    assert weights.sum() == pytest.approx(1)
    inside = np.zeros(len(weights), bool)
    inside[5 : 5 + small_bags.FEW] = True
    assert weights[inside].mean() > 2 * weights[~inside].mean()
    _, scores = head.tile_scores(root / "features/S3_0.h5")
    assert scores[inside, 1].min() > scores[~inside, 1].mean()


def test_attention_is_the_mean_of_the_networks(head, root):
    found = head.attention(root / "features/S3_0.h5")
    assert found.by_network.shape == (2, small_bags.TILES)
    np.testing.assert_array_equal(found.weights, found.by_network.mean(0))
    equal = np.full((1, 4), 0.25)
    assert np.isnan(Attention(None, equal[0], equal).agreement)
    same = np.array([[0.1, 0.4, 0.5], [0.2, 0.35, 0.45]])
    assert Attention(None, same.mean(0), same).agreement == pytest.approx(np.corrcoef(same)[0, 1])


def test_a_saved_head_predicts_the_same(head, root, tmp_path):
    head.save(tmp_path / "head")
    names = {p.name for p in (tmp_path / "head").iterdir()}
    assert names == {"config.json", "model.safetensors", "report.json", "README.md"}
    config = json.loads((tmp_path / "head/config.json").read_text())
    assert (config["task"], config["head"]) == ("slide classification", "abmil")
    assert str(root) not in "".join(
        p.read_text() for p in (tmp_path / "head").iterdir() if p.suffix != ".safetensors"
    )
    loaded = pathencoder.load_head(tmp_path / "head")
    np.testing.assert_array_equal(
        loaded.predict(root / "features").probabilities,
        head.predict(root / "features").probabilities,
    )
    file = root / "features/S3_0.h5"
    np.testing.assert_array_equal(loaded.attention(file).weights, head.attention(file).weights)
    assert (loaded.report, loaded.record) == (head.report, head.record)


def test_held_out_slides_and_evaluate(root, tmp_path):
    lines = (root / "slides.csv").read_text().splitlines()
    parts = ["split", *("test" if n < 4 else "train" for n in range(16))]
    (tmp_path / "slides.csv").write_text(
        "\n".join(f"{line},{part}" for line, part in zip(lines, parts, strict=True))
    )
    head = fit(tmp_path, features=root / "features", evaluate=" Testing", epochs=25)
    assert (head.held_out.part, sum(head.held_out.images)) == ("test", 4)
    assert sum(head.report.images) == 12
    assert head.held_out.balanced_accuracy.value == 1
    again = head.evaluate(tmp_path / "slides.csv", features=root / "features", part="testing")
    assert again == head.held_out
    with pytest.raises(ConfigError, match="no part 'val'; it has test, train"):
        fit(tmp_path, features=root / "features", evaluate="val")
    head = fit(tmp_path, features=root / "features", epochs=1)
    assert "4 slides of the part 'test' were not read" in " ".join(head.report.notes)


def held_out(root, tmp_path, **labels):
    """A table whose first four slides are held out, with other labels of some."""
    lines = (root / "slides.csv").read_text().splitlines()
    rows = []
    for number, line in enumerate(lines[1:]):
        name, label, patient = line.split(",")
        label = labels.get(name.split(".")[0], label)
        rows.append(f"{name},{label},{patient},{'test' if number < 4 else 'train'}")
    return small_bags.table(tmp_path, [f"{lines[0]},split", *rows])


def test_patients_in_two_spellings_are_refused(tmp_path):
    file, _ = small_bags.folder(tmp_path, patients=4, each=2)
    lines = [x.replace(",P3", ",p3") if "_1" in x else x for x in file.read_text().splitlines()]
    small_bags.table(tmp_path, lines)
    for bag in ("slide", "patient"):
        with pytest.raises(ConfigError, match="groups 'P3' and 'p3' differ in case"):
            fit(tmp_path, bag=bag, epochs=1)


def test_a_bad_held_out_part_is_refused_before_training(root, tmp_path, monkeypatch):
    monkeypatch.setattr(training._Training, "epoch", lambda _: pytest.fail("it was trained"))
    held_out(root, tmp_path, S0_0="other")
    words = "the train part has the classes normal, tumour, not other, which the part 'test'"
    with pytest.raises(ConfigError, match=words):
        fit(tmp_path, features=root / "features", evaluate="test")
    held_out(root, tmp_path, S0_0="other", S4_0="other")
    for file in (root / "features").iterdir():
        if file.stem != "S4_0":  # a slide without features
            small_bags.write(tmp_path / "features", file.stem, pathencoder.read_features(file).rows)
    with pytest.raises(ConfigError, match="no slides of other are left in the train part"):
        fit(tmp_path, evaluate="test", on_error="skip")
    held_out(root, tmp_path)
    for number in range(4):
        (tmp_path / "features" / f"S{number}_0.h5").unlink()
    with pytest.raises(ConfigError, match="no part 'test'; it has train"):
        fit(tmp_path, evaluate="test", on_error="skip")


def test_the_slides_of_a_patient_together(tmp_path):
    small_bags.folder(tmp_path, patients=10, each=2)
    head = fit(tmp_path, bag="patient", epochs=25)
    assert (head.report.unit, sum(head.report.images)) == ("patients", 10)
    files = [tmp_path / "features" / f"S{n}_{i}.h5" for n in (0, 1) for i in (0, 1)]
    found = head.predict(files, patients=["P0", "P0", "P1", "P1"])
    assert (found.keys, found.labels) == (["P0", "P1"], ["normal", "tumour"])
    whole = np.concatenate([pathencoder.read_features(file).rows for file in files[:2]])
    np.testing.assert_array_equal(found.probabilities[0], head.probabilities(whole))
    with pytest.raises(ConfigError, match="1 names for 4 feature files"):
        head.predict(files, patients=["P0"])
    numbers = head.predict(files, patients=np.array([1.0, 1.0, 2.0, 2.0]))  # as pandas has them
    assert numbers.keys == ["1", "2"]
    for nothing in (None, float("nan"), " "):
        with pytest.raises(ConfigError, match=r"none is named for .*S1_1\.h5"):
            head.predict(files, patients=["P0", "P0", "P1", nothing])
    with pytest.raises(ConfigError, match="patients 'P1' and 'p1' differ in case"):
        head.predict(files, patients=["P0", "P0", "P1", "p1"])
    with pytest.raises(ConfigError, match="4 feature files"):
        head.predict(files, patients="ABCD")


def test_features_of_another_encoder(head, tmp_path):
    good = small_bags.rows("normal", 0)
    other = small_bags.write(tmp_path, "other", good, recipe={"sha256": "34" * 32})
    narrow = small_bags.write(tmp_path, "narrow", good[:, :5])
    with pytest.raises(
        HeadMismatch, match=r"other\.h5: these features are of small .*weights 3434"
    ):
        head.predict(other)
    with pytest.raises(HeadMismatch, match="length of a row 5, not 6"):
        head.attention(narrow)
    with pytest.raises(HeadMismatch, match="views 4, not 1"):
        head.predict(small_bags.write(tmp_path, "turned", good, recipe={"views": 4}))
    found = head.predict([other, narrow, small_bags.write(tmp_path, "a", good)], on_error="nan")
    assert found.labels == ["", "", "normal"]
    assert list(found.errors) == ["other", "narrow"]
    assert np.isnan(found.probabilities[:2]).all()


def test_slides_that_cannot_be_used(head, tmp_path):
    empty = small_bags.write(tmp_path, "empty", small_bags.rows("normal", 0)[:0])
    with pytest.raises(ConfigError, match="no tissue was found"):
        head.predict(empty)
    with pytest.raises(StoreError, match="does not exist"):
        head.predict(tmp_path / "gone.h5")
    (tmp_path / "none").mkdir()
    with pytest.raises(StoreError, match="holds no feature files"):
        head.predict(tmp_path / "none")


def test_an_encoder_that_is_given_must_be_that_of_the_features(root):
    with pytest.raises(HeadMismatch, match=r"the features are of small .*, not of pathencoder-"):
        fit(root, encoder="pathencoder-tiny", epochs=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mpp": 0.5}, "does not take it"),
        ({"hiden": 3}, "Did you mean 'hidden'"),
        ({"kind": "slide-mean", "attention": 3}, "attention: the head 'slide-mean' has"),
        ({"features": None}, "name their folder"),
        ({"labels": ["a"]}, "labels: the name of a column"),
        ({"on_error": "nan"}, "'raise' or 'skip'"),
        ({"max_error": 2}, "max_error=2"),
        ({"progress": "no"}, "progress='no'"),
    ],
)
def test_arguments_that_do_not_fit(root, options, words):
    with pytest.raises(ConfigError, match=words):
        fit(root, **options)


def test_one_class_and_one_patient(root, tmp_path):
    lines = (root / "slides.csv").read_text().splitlines()
    small_bags.table(tmp_path, [lines[0], *(x for x in lines if "normal" in x)])
    with pytest.raises(ConfigError, match="8 slides of the train part are of one class, 'normal'"):
        fit(tmp_path, features=root / "features")
    rows = [",".join([*line.split(",")[:2], "P"]) for line in lines[1:]]
    small_bags.table(tmp_path, [lines[0], *rows])
    with pytest.raises(ConfigError, match="of one group, 'P'"):
        fit(tmp_path, features=root / "features")
    rows = [",".join([*x.split(",")[:2], "P" if "tumour" in x else x[:3]]) for x in lines[1:]]
    small_bags.table(tmp_path, [lines[0], *rows])
    with pytest.raises(ConfigError, match=r"class 'tumour' occurs in one group alone.*\(epochs=\)"):
        fit(tmp_path, features=root / "features", epochs=None)


def test_without_patients_no_interval_is_claimed(root, tmp_path):
    lines = (root / "slides.csv").read_text().splitlines()
    small_bags.table(tmp_path, [line.rpartition(",")[0] for line in lines])
    report = fit(tmp_path, features=root / "features").report
    assert (report.groups, report.balanced_accuracy.low) == (None, None)
    assert "slides of one patient may be both fitted on" in " ".join(report.notes)


def test_a_class_whose_slides_are_all_left_out_is_named(tmp_path):
    table, _ = small_bags.folder(tmp_path, patients=6)
    table.write_text(table.read_text() + "gone.svs,benign,P8\n")
    with pytest.raises(ConfigError, match="no slides of benign are left in the train part"):
        fit(tmp_path, on_error="skip")

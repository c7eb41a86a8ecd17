"""Dense heads through `fit` and `load_head`: files, exact reloads, resuming, reports."""

import json

import labelled_tissue
import numpy as np
import pytest
import small_encoders
import torch
from safetensors.numpy import load_file
from synthetic_nuclei import tissue

import pathencoder
from pathencoder.errors import ConfigError, HeadMismatch, StoreError
from pathencoder.heads.dense import train
from pathencoder.heads.dense.head import DenseHead
from pathencoder.heads.dense.report import DenseReport

pytestmark = pytest.mark.full
QUICK = {"steps": 2, "batch": 2, "side": 64, "progress": False}
KINDS = ("cnn", "vit")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return labelled_tissue.folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def image():
    return tissue((96, 96), nuclei=8, radius=7, seed=9)[0]


@pytest.fixture
def folders(tmp_path):
    """The folder of a small encoder, by its kind."""

    def save(kind):
        place = tmp_path / kind
        small_encoders.encoder(kind).save_pretrained(place)
        return place

    return save


def made(data, encoder=None, kind="nuclei", **options):
    given = {"mpp": labelled_tissue.MPP, **QUICK, **options}
    return pathencoder.fit(kind, encoder or small_encoders.shared("cnn"), data, **given)


def maps(head, image):
    return head.model.probabilities(image, labelled_tissue.MPP)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_gives_the_same_numbers(pictures, image, folders, tmp_path, kind, frozen):
    encoder = pathencoder.load_encoder(folders(kind), device="cpu")
    head = made(pictures, encoder, frozen=frozen)
    head.save(tmp_path / "head")
    again = pathencoder.load_head(tmp_path / "head", device="cpu")
    assert isinstance(again, DenseHead)
    assert np.array_equal(maps(head, image), maps(again, image))
    assert np.array_equal(head.predict(image)[0].labels, again.predict(image)[0].labels)
    assert again.report == head.report
    assert again.settings == head.settings
    assert head.settings["precision"] in ("fp32", "bf16")
    names = load_file(tmp_path / "head/model.safetensors")
    assert any(name.startswith("encoder.") for name in names) != frozen


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_head_needs_no_encoder_and_names_its_parent(
    pictures, image, folders, tmp_path, kind
):
    place = folders(kind)
    head = made(pictures, pathencoder.load_encoder(place, device="cpu"))
    before = maps(head, image)
    head.save(tmp_path / "head")
    for file in place.iterdir():
        file.unlink()
    again = pathencoder.load_head(tmp_path / "head", device="cpu")
    assert np.array_equal(before, maps(again, image))
    config = json.loads((tmp_path / "head/config.json").read_text())
    assert config["adapted"]
    assert config["encoder"]["name"] == f"small-{kind}"
    card = (tmp_path / "head/README.md").read_text()
    assert f"base_model: small-{kind}\nbase_model_relation: finetune" in card
    assert "nothing else has to be loaded" in card
    assert again.encoder.spec.base_model.startswith(f"small-{kind}")
    with pytest.raises(HeadMismatch, match="has its own encoder"):
        again.use(small_encoders.shared(kind))


def test_a_head_saved_in_place_of_its_own_encoder_is_an_encoder_again(pictures, folders, tmp_path):
    head = made(pictures, pathencoder.load_encoder(folders("cnn"), device="cpu"))
    head.encoder.save_pretrained(tmp_path / "adapted")
    encoder = pathencoder.load_encoder(tmp_path / "adapted", device="cpu")
    for name, value in head.encoder.network.state_dict().items():
        assert torch.equal(value, encoder.network.state_dict()[name])


def test_a_frozen_head_refuses_another_encoder(pictures, folders, tmp_path):
    place = folders("cnn")
    made(pictures, pathencoder.load_encoder(place, device="cpu"), frozen=True).save(
        tmp_path / "head"
    )
    with pytest.raises(HeadMismatch, match="its weights are others"):
        pathencoder.load_head(tmp_path / "head", encoder=small_encoders.shared("vit"))
    given = pathencoder.load_encoder(place, device="cpu")
    assert pathencoder.load_head(tmp_path / "head", encoder=given).encoder.spec.name == "small-cnn"
    for file in place.iterdir():
        file.unlink()
    with pytest.raises(HeadMismatch, match="cannot be loaded"):
        pathencoder.load_head(tmp_path / "head").predict(np.zeros((64, 64, 3), np.uint8))


def test_the_encoder_that_is_given_is_not_changed(pictures):
    encoder = small_encoders.encoder("cnn")
    before = {name: value.clone() for name, value in encoder.network.state_dict().items()}
    state = torch.random.get_rng_state()
    made(pictures, encoder)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in encoder.network.state_dict().items():
        assert torch.equal(value, before[name])


class Stop(Exception):
    """In place of Ctrl-C."""


@pytest.mark.parametrize("frozen", [True, False])
def test_an_interrupted_fit_goes_on_and_gives_the_same_head(
    pictures, image, tmp_path, monkeypatch, frozen
):
    monkeypatch.setattr(train, "EVERY", 2)
    steps = {"steps": 6, "frozen": frozen}
    whole = made(pictures, **steps)
    place = tmp_path / "state"

    def stop(done, _):
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        made(pictures, **steps, checkpoint=place, progress=stop)
    seen = []
    again = made(pictures, **steps, checkpoint=place, progress=lambda done, _: seen.append(done))
    assert seen[0] == 4
    assert np.array_equal(maps(whole, image), maps(again, image))
    (tmp_path / "taken").write_text("a file in the way")
    with pytest.raises(StoreError):
        again.save(tmp_path / "taken")
    assert (place / "fit.partial").is_file()  # the fit is not lost with a save that fails
    again.save(tmp_path / "head")
    assert not place.exists()


def test_a_checkpoint_of_other_settings_is_not_used(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "EVERY", 1)

    def stop(done, _):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        made(pictures, steps=4, checkpoint=tmp_path, progress=stop)
    seen = []
    made(pictures, steps=4, lr=1e-3, checkpoint=tmp_path, progress=lambda n, _: seen.append(n))
    assert seen[0] == 0


def test_folds_that_are_done_are_not_fitted_again(pictures, tmp_path, monkeypatch):
    groups = {"folds": 2, "groups": r"(P\d+)_"}
    whole = made(pictures, **groups)

    def stop(done, _):
        if done == 5:  # in the last of three fits of two steps
            raise Stop

    with pytest.raises(Stop):
        made(pictures, **groups, checkpoint=tmp_path, progress=stop)
    steps = []
    real = train._Run.step
    monkeypatch.setattr(train._Run, "step", lambda run: steps.append(1) or real(run))
    again = made(pictures, **groups, checkpoint=tmp_path)
    assert len(steps) == 2
    assert again.report == whole.report


def test_a_loss_that_is_no_number_is_said(pictures):
    encoder = small_encoders.encoder("cnn")
    next(encoder.network.parameters()).data.fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"the loss became nan in step 1 of 2.*lr=0\.003"):
        made(pictures, encoder)


def test_folds_by_group_give_intervals(pictures):
    head = made(pictures, folds=2, groups=r"(P\d+)_")
    report = head.report
    assert report.part == "2 folds by group"
    assert (report.images, report.groups) == (4, 4)
    assert set(report.scores) == {"dice", "aji", "pq", "f1"}
    for figure in report.scores.values():
        assert figure.low <= figure.value <= figure.high
    assert "intervals from 4 groups are rough" in report.notes
    assert DenseReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert "dice" in report.text()


def test_without_groups_no_interval_is_claimed(pictures):
    report = made(pictures, folds=2).report
    assert report.groups is None
    assert {figure.low for figure in report.scores.values()} == {None}
    assert any("no interval is claimed" in note for note in report.notes)


def test_without_folds_the_report_says_so(pictures):
    report = made(pictures).report
    assert report.scores == {}
    assert any("folds=4" in note for note in report.notes)


def test_windows_that_cannot_be_normalised_are_refused(pictures):
    with pytest.raises(ConfigError, match=r"batch=1 with side=32: .*Give batch=2, or side=64"):
        made(pictures, batch=1, side=32)
    made(pictures, batch=1, side=64, steps=1)


def test_a_held_out_part_is_read_where_it_is_named(tmp_path):
    data = labelled_tissue.folder(tmp_path / "data", count=2, parts=("train", "test"))
    head = made(data, groups=r"(P\d+)_")
    assert head.held_out is None
    assert any("evaluate='test' (--evaluate test)" in note for note in head.report.notes)
    assert any("2 images of the part 'test'" in note for note in head.report.notes)
    head = made(data, groups=r"(P\d+)_", evaluate="test")
    assert (head.held_out.part, head.held_out.images, head.held_out.groups) == ("test", 2, 2)
    given = {"groups": r"(P\d+)_", "mpp": labelled_tissue.MPP}
    assert head.evaluate(data, part="test", **given).scores == head.held_out.scores


def test_images_of_both_parts_are_said(tmp_path):
    data = labelled_tissue.folder(tmp_path / "data", count=2, parts=("train", "test"))
    first = (data / "train/images/P0_0.png").read_bytes()
    (data / "test/images/P2_0.png").write_bytes(first)
    notes = made(data, evaluate="test").held_out.notes
    assert any("1 of these images were fitted on too" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 3}, "Did you mean 'steps'"),
        ({"steps": 0}, "steps=0: a whole number from 1 on"),
        ({"steps": True}, "steps=True"),
        ({"lr": "fast"}, "lr='fast'"),
        ({"encoder_lr": float("nan")}, "encoder_lr=nan"),
        ({"frozen": 1}, "frozen=1: True or False"),
        ({"frozen": True, "encoder_lr": 1e-3}, "contradict"),
        ({"views": 2}, "views=2: 1 .the image as it is."),
        ({"precision": "fp16"}, "precision='fp16': one of auto, fp32, bf16"),
        ({"stain": "giemsa"}, "stain='giemsa'"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 2, "groups": lambda _: "one"}, "one group"),
        ({"checkpoint": ""}, "checkpoint=''"),
        ({"calibrate": False}, "calibrate=False: the head 'nuclei' does not take it"),
        ({"evaluate": "test"}, "no part 'test'"),
        ({"progress": "often"}, "progress='often'"),
    ],
)
def test_settings_that_do_not_fit(pictures, options, message):
    with pytest.raises(ConfigError, match=message):
        made(pictures, **options)


def test_predictions_average_the_views_of_the_fit(pictures, image):
    head = made(pictures, views=4)
    assert head.settings["views"] == 4
    found = {views: head.predict(image, views=views)[0].labels for views in (None, 1, 4)}
    assert (found[None] == found[4]).all()
    assert (found[None] != found[1]).any()


def test_an_encoder_of_another_dtype_is_refused(pictures):
    with pytest.raises(ConfigError, match="bfloat16, dense heads need float32"):
        made(pictures, small_encoders.encoder("cnn").to(torch.bfloat16))


def test_points(tmp_path):
    data = labelled_tissue.folder(tmp_path / "data", count=2, points=True)
    head = made(data, kind="points", folds=2)
    assert set(head.report.scores) == {"precision", "recall", "f1"}
    head.save(tmp_path / "head")
    head = pathencoder.load_head(tmp_path / "head", device="cpu")
    found = head.predict(data / "images")
    assert [one.key for one in found] == ["P0_0.png", "P1_1.png"]
    assert found[0].points.shape == (len(found[0]), 2)
    assert found[0].scores.shape == (len(found[0]),)


def test_classes_of_points(folders, tmp_path):
    data = labelled_tissue.cells(tmp_path / "data")
    encoder = pathencoder.load_encoder(folders("cnn"), device="cpu")
    head = made(data, encoder, kind="points", folds=2, steps=20)
    assert head.cells.classes == ("negative", "positive")
    assert {"mean class f1", "f1 of positive", "f1"} <= set(head.report.scores)
    image = data / "images/P0_0.png"
    found = head.predict(image)[0]
    assert set(found.names) <= {"negative", "positive"}
    head.save(tmp_path / "head")
    again = pathencoder.load_head(tmp_path / "head", device="cpu").predict(image)[0]
    assert len(again)
    assert np.array_equal(found.points, again.points)
    assert np.array_equal(found.probabilities, again.probabilities)
    assert made(data, kind="points", cells=False).cells is None


def test_classes_of_points_need_the_parent_which_can_be_given(folders, tmp_path):
    data, place = labelled_tissue.cells(tmp_path / "data"), folders("cnn")
    head = made(data, pathencoder.load_encoder(place, device="cpu"), kind="points", steps=20)
    assert head.adapted
    head.save(tmp_path / "head")
    assert "need the encoder that it began from" in (tmp_path / "head/README.md").read_text()
    moved, image = place.rename(tmp_path / "moved"), data / "images/P0_0.png"
    alone = pathencoder.load_head(tmp_path / "head", device="cpu")
    for _ in range(2):  # a second call does not find cells without classes
        with pytest.raises(HeadMismatch, match=r"cannot be loaded .*Give it"):
            alone.predict(image)
    parent = pathencoder.load_encoder(moved, device="cpu")
    alone.use(parent)
    given = pathencoder.load_head(tmp_path / "head", encoder=parent, device="cpu")
    found = head.predict(image)[0]
    assert len(found)
    for again in (alone.predict(image)[0], given.predict(image)[0]):
        assert np.array_equal(found.points, again.points)
        assert np.array_equal(found.probabilities, again.probabilities)
    for other in (head, alone):
        with pytest.raises(HeadMismatch, match="its weights are others"):
            other.use(small_encoders.encoder("vit"))


def test_pixels(tmp_path):
    data = labelled_tissue.folder(tmp_path / "data", count=2)
    names = [0, *range(1, 9)]
    labels = {number: "nucleus" if number else "background" for number in names}
    head = made(data, kind="pixels", labels=labels, folds=2, read_mpp=0.5)
    assert head.classes == ("background", "nucleus")
    assert {"mean dice", "dice of nucleus"} <= set(head.report.scores)
    head.save(tmp_path / "head")
    again = pathencoder.load_head(tmp_path / "head", device="cpu")
    assert again.classes == head.classes
    found = again.predict(data / "images/P0_0.png")[0]
    assert found.labels.max() <= 1


def test_incomplete_files_are_refused(pictures, tmp_path):
    made(pictures).save(tmp_path / "head")
    file = tmp_path / "head/config.json"
    config = json.loads(file.read_text())
    del config["sizes"]
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="is incomplete"):
        pathencoder.load_head(tmp_path / "head")

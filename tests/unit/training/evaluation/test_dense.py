"""The dense protocol on synthetic images: positions of grid and cells, folds, intervals."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import small_encoders
import torch
from click.testing import CliRunner
from PIL import Image
from small_dense_sets import write_dense_sets

from pathencoder.encoder import Encoder
from training.evaluation import dense, dense_table, encoders
from training.evaluation.dense import DenseSet, Picture, Score
from training.evaluation.dense_maps import Decoder, maps_of
from training.evaluation.dense_table import interval
from training.evaluation.encoders import Subject

pytestmark = pytest.mark.full


class Eyes:
    """An encoder whose pyramid is the image itself at two strides: positions can be compared."""

    spec = SimpleNamespace(input_size=64)
    device, dtype = torch.device("cpu"), torch.float32
    transform = SimpleNamespace(
        normalise=lambda batch: torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    )

    def pyramid(self, x):
        pooled = torch.nn.functional.avg_pool2d
        return [pooled(x, 4), pooled(x, 8)], [4, 8]


def enlarged(maps):
    """All maps on the grid [C, h, w], as a whole."""
    size = (maps.cells, maps.cells)
    levels = [
        torch.nn.functional.interpolate(m, size=size, mode="bilinear", align_corners=False)
        for m in maps.levels
    ]
    down, across = maps.windows
    joined = torch.cat(levels, 1).reshape(down, across, -1, *size).permute(2, 0, 3, 1, 4)
    whole = joined.reshape(joined.shape[0], down * size[0], across * size[1])
    return whole[:, : maps.shape[0], : maps.shape[1]].numpy()


IMAGE = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)


def test_grid_positions_are_those_of_the_pixels():
    maps = maps_of(Eyes(), IMAGE)
    assert maps.shape == (25, 38)
    cell = IMAGE[40:44, 100:104].reshape(-1, 3).mean(0) / 255
    assert maps.at(np.array([10 * 38 + 25]))[0, :3] == pytest.approx(cell, abs=1e-5)


def test_positions_and_decoders_read_the_enlarged_maps():
    maps = maps_of(Eyes(), IMAGE)
    whole = enlarged(maps)
    places = np.random.default_rng(1).permutation(25 * 38)[:300]
    assert maps.at(places) == pytest.approx(whole.reshape(6, -1).T[places], abs=1e-5)
    weights = np.random.default_rng(2).normal(size=(2, 6)).astype(np.float32)
    found = maps.probabilities([Decoder(w, 0.3) for w in weights])
    expected = 1 / (1 + np.exp(-(np.tensordot(weights, whole, 1) + 0.3)))
    assert found == pytest.approx(expected, abs=1e-5)


def test_cells_are_found_where_they_are():
    found = np.zeros((50, 50), np.float32)
    for y, x in ((10, 12), (30, 31), (30, 40)):
        found[y, x] = 1
    cells = dense.peaks(found, 0.05, 0.25)
    expected = np.array([[42, 50], [122, 126], [122, 162]])
    assert np.abs(np.sort(cells, 0) - np.sort(expected, 0)).max() <= 2


@pytest.fixture
def data(tmp_path):
    return write_dense_sets(tmp_path)


@pytest.mark.parametrize("s", [dense.SETS[0], dense.SETS[2]], ids=lambda s: s.name)
def test_a_linear_decoder_finds_what_the_features_contain(s, data):
    pictures = dense.pictures_of(s, data, choose=True)
    found = dense.evaluate(Eyes(), s, pictures, choose=True)
    (scores,) = found.scores
    assert [x.file for x in scores] == [p.file.name for p in pictures]
    assert dense.mean_score(s, scores) > 0.7  # colour alone is enough here
    assert found.notes == ("decoders fitted on 3,200 positions",)  # four images a fold


def test_many_images_give_fewer_positions_each(data, monkeypatch):
    monkeypatch.setattr(dense, "MOST_POSITIONS", 600)
    pictures = dense.pictures_of(dense.SETS[0], data, choose=True)
    found = dense.evaluate(Eyes(), dense.SETS[0], pictures, choose=True)
    assert found.positions == 400  # 100 of each image, four images a fold


def test_maps_are_the_same_without_batch_norms():
    encoder = small_encoders.encoder("cnn")
    fast = Subject("cnn", encoder, "f" * 64).for_maps()
    assert fast.network is not encoder.network
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        for found, expected in zip(fast.pyramid(x)[0], encoder.pyramid(x)[0], strict=True):
            assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_real_encoder_goes_through(data):
    s = dense.SETS[0]
    (scores,) = dense.evaluate(
        small_encoders.encoder("vit"), s, dense.pictures_of(s, data, choose=True), choose=True
    ).scores
    assert all(0 <= x.dice <= 1 for x in scores)


def test_training_runs_of_one_name_are_one_row(data, tmp_path):
    runs = [tmp_path / name for name in ("a", "b")]
    for share, folder in zip((1, 3), runs, strict=True):
        encoder = small_encoders.encoder("cnn")
        with torch.no_grad():
            next(encoder.parameters()).pow_(share)  # other maps
        encoder.save_pretrained(folder)

    def values(name):
        given = [name, "--data", data, "--cache", tmp_path / "cache", "--sets", "monuseg", "--cv"]
        given += ["--seeds", "1", "--json", tmp_path / "found.json"]
        done = CliRunner().invoke(dense_table.dense, list(map(str, given)))
        assert done.exit_code == 0, done.output
        ((row, found),) = json.loads((tmp_path / "found.json").read_text())["monuseg"].items()
        return row, found["value"]

    each = [values(folder)[1] for folder in runs]
    row, both = values(f"mine={runs[0]},{runs[1]}")
    assert row == "mine"
    assert each[0] != each[1]
    assert both == pytest.approx(sum(each) / 2)


def test_scores_are_computed_again_when_the_labels_change(tmp_path):
    write_dense_sets(tmp_path, ("monuseg",))
    subject = encoders.subject_of("cnn", small_encoders.encoder("cnn"))
    s = dense.SETS[0]

    def scores():
        given = {"data": tmp_path, "cache": tmp_path / "cache", "choose": True, "seeds": 1}
        return dense_table.scores_of(subject, s, **given)

    before = scores()
    assert scores() == before
    file = tmp_path / "nuclei/monuseg/train/0.labels.png"
    with Image.open(file) as opened:
        labels = np.array(opened)
    labels[:64] = 0
    Image.fromarray(labels).save(file)
    assert scores() != before


@pytest.mark.parametrize(
    "change",
    [
        {"interpolation": "bilinear"},
        {"resize": "shortest"},
        {"resize_size": 256},
        {"model_args": {"drop_rate": 0.5}},
        {"embedding": "mean"},
    ],
)
def test_a_fingerprint_is_of_all_that_decides_an_embedding(change):
    encoder = small_encoders.encoder("vit")
    other = Encoder(encoder.network, dataclasses.replace(encoder.spec, **change))
    before = encoders.subject_of("a", encoder).fingerprint
    assert encoders.subject_of("b", encoder).fingerprint == before
    assert encoders.subject_of("a", other).fingerprint != before


def test_imagenet_is_one_network(monkeypatch):
    subjects = [Subject(f"imagenet, {n}", None, n) for n, _ in encoders.IMAGENET_READOUTS]
    monkeypatch.setattr(encoders, "open_subject", lambda name: subjects)
    ((name, (found,)),) = encoders.networks(["imagenet"]).items()
    assert (name, found.name, found.fingerprint) == ("imagenet", "imagenet", "pools")


def test_patients_are_never_on_both_sides(data):
    pictures = dense.pictures_of(dense.SETS[0], data, choose=True)
    for train, held_out in dense._folds(pictures, choose=True):
        assert not {pictures[i].group for i in train} & {pictures[i].group for i in held_out}


def test_intervals_are_over_groups_and_paired():
    s = DenseSet("x", 0.25)
    ours = [[Score(str(i), f"g{i // 2}", 8 + i % 2, 10, 10) for i in range(6)]]
    theirs = [[Score(str(i), f"g{i // 2}", 7 + i % 2, 10, 10) for i in range(6)]]
    assert interval(s, ours).value == pytest.approx(0.85)
    paired = interval(s, ours, theirs)
    assert (paired.value, paired.low, paired.high) == pytest.approx((0.1, 0.1, 0.1))


def test_nothing_to_find_and_nothing_found_is_right():
    assert Score("a", "a", 0, 0, 0).dice == 1
    assert Score("a", "a", 0, 3, 0).dice == 0


def test_unknown_slides_are_groups_of_their_own(data):
    meta = data / "nuclei/monuseg/meta.csv"
    meta.write_text(meta.read_text().replace("p0", "unknown"))
    groups = [p.group for p in dense.pictures_of(dense.SETS[0], data, choose=True)]
    assert groups[:2] == ["train/0.png", "train/1.png"]
    assert isinstance(dense.pictures_of(dense.SETS[0], data, choose=True)[0], Picture)

"""Dense heads from labelled images to objects: training, whole images, views."""

import dataclasses

import numpy as np
import pytest
import small_encoders
import torch

from pathencoder.errors import ConfigError
from pathencoder.heads.dense import augment, train
from pathencoder.heads.dense.augment import Augmentation
from pathencoder.heads.dense.model import Labelled, fit
from pathencoder.heads.dense.network import DenseNetwork
from pathencoder.heads.dense.tasks import GLANDS, NUCLEI, POINTS
from pathencoder.heads.dense.train import Training
from pathencoder.matching import match_points
from pathencoder.metrics import dice

pytestmark = pytest.mark.full
QUICK = Training(steps=40, batch=4, side=64, lr=1e-2, encoder_lr=0)


def scene(seed=0, side=128, radius=7):
    """Dark disks on a light ground, their labels and their centres."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    centres = np.array([(a, b) for a in range(14, side, 30) for b in range(14, side, 30)])
    centres = centres + rng.integers(-4, 5, centres.shape)
    labels = np.zeros((side, side), np.int32)
    for number, (cy, cx) in enumerate(centres, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    image = np.where(labels[..., None] > 0, (110, 60, 140), (235, 215, 230)).astype(float)
    image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    return image, labels, centres[:, ::-1].astype(float)


@pytest.fixture(scope="module")
def nuclei():
    image, labels, _ = scene()
    return fit(small_encoders.shared("cnn"), NUCLEI, [Labelled(image, labels, 0.5)], QUICK, mpp=0.5)


def test_nuclei_of_another_image_are_found(nuclei):
    image, labels, _ = scene(seed=1)
    found = nuclei.predict(image, 0.5)
    assert found.shape == labels.shape
    assert dice(labels, found) > 0.9
    assert found.max() == labels.max()


def test_an_image_at_another_scale_is_resampled(nuclei):
    image, labels, _ = scene(seed=1)
    large = image.repeat(2, 0).repeat(2, 1)
    found = nuclei.predict(large, 0.25)
    assert found.shape == large.shape[:2]
    assert dice(labels.repeat(2, 0).repeat(2, 1), found) > 0.9


@pytest.mark.parametrize("views", [4, 8])
def test_averaged_views_agree(nuclei, views):
    image, *_ = scene(seed=1)
    one = nuclei.probabilities(image, 0.5)
    several = nuclei.probabilities(image, 0.5, views=views)
    assert one.shape == several.shape
    assert np.abs(one[0] - several[0]).mean() < 0.1


def test_windows_leave_no_seams(nuclei, monkeypatch):
    image, *_ = scene(seed=2, side=256)
    whole = nuclei.probabilities(image, 0.5)
    monkeypatch.setattr("pathencoder.heads.dense.network._SIDE", 128)
    parts = nuclei.probabilities(image, 0.5)
    assert parts.shape == whole.shape
    assert np.abs(parts[0] - whole[0]).mean() < 0.02


def test_points():
    image, _, centres = scene()
    head = fit(
        small_encoders.shared("cnn"), POINTS, [Labelled(image, centres, 0.5)], QUICK, mpp=0.5
    )
    image, _, centres = scene(seed=1)
    found = head.predict(image, 0.5)
    pairs = match_points(centres, found[:, :2], 3)
    assert 2 * len(pairs) / (len(centres) + len(found)) > 0.9


def test_glands_with_an_adapted_transformer():
    image, labels, _ = scene()
    encoder = small_encoders.shared("vit")
    before = {k: v.clone() for k, v in encoder.network.state_dict().items()}
    how = Training(steps=2, batch=2, encoder_lr=1e-3)
    head = fit(encoder, GLANDS, [Labelled(image, labels, 0.5)], how, mpp=0.5)
    assert head.predict(image, 0.5).shape == labels.shape
    for name, value in encoder.network.state_dict().items():
        assert torch.equal(value, before[name])
    after = head.network.encoder.network.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def test_stain_maps_are_read_beside_the_image():
    image, labels, _ = scene()
    how = Training(steps=2, batch=2, side=64, encoder_lr=0)
    given = [Labelled(image, labels, 0.5)]
    head = fit(small_encoders.shared("cnn"), NUCLEI, given, how, mpp=0.5, stain_maps=True)
    assert head.network.decoder.shape.extra == 3
    assert head.predict(image, 0.5).shape == labels.shape


def test_precision_follows_the_device_unless_it_is_given(monkeypatch):
    cpu = torch.device("cpu")
    for gains, name in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(train, "gains_from_bf16", lambda device, gains=gains: gains)
        assert Training().on(cpu).precision == name
        assert Training(precision="fp32").on(cpu).precision == "fp32"


def test_both_precisions_give_nearly_the_same_head():
    image, labels, _ = scene()
    maps = {}
    for name in ("fp32", "bf16"):
        how = dataclasses.replace(QUICK, precision=name)
        fitted = fit(
            small_encoders.shared("cnn"), NUCLEI, [Labelled(image, labels, 0.5)], how, mpp=0.5
        )
        assert {p.dtype for p in fitted.network.parameters()} == {torch.float32}
        maps[name] = fitted.probabilities(image, 0.5)
    inside = [m[0] > 0.5 for m in maps.values()]
    assert not np.array_equal(*maps.values())
    assert dice(*inside) > 0.95


def test_the_same_seed_gives_the_same_head():
    image, labels, _ = scene()
    how = Training(steps=2, batch=2, side=64, encoder_lr=0)
    maps = [
        fit(
            small_encoders.shared("cnn"), NUCLEI, [Labelled(image, labels, 0.5)], how, mpp=0.5
        ).probabilities(image, 0.5)
        for _ in range(2)
    ]
    assert np.array_equal(*maps)


def test_outlines_of_coarse_maps_are_smooth(nuclei):
    y, x = np.mgrid[:24, :24] + 0.5
    depth = np.clip(1 - np.hypot(y - 12, x - 12) / 16, 0, 1)
    maps = np.stack([depth, depth]).astype(np.float32)
    found = nuclei.objects(maps, (96, 96), nuclei.mpp / 4)
    y, x = np.mgrid[:96, :96] + 0.5
    assert dice(np.hypot(y - 48, x - 48) < 32, found) > 0.99
    nearest = (maps[0] > 0.5).repeat(4, 0).repeat(4, 1)
    assert dice(np.hypot(y - 48, x - 48) < 32, nearest) < dice(np.hypot(y - 48, x - 48) < 32, found)


@pytest.mark.parametrize("factor", [2, 4])
def test_objects_of_fine_maps_stay_in_place(nuclei, factor):
    moved = []
    y, x = np.mgrid[:96, :96] + 0.5
    for centre in np.random.default_rng(0).uniform(40, 56, (20, 2)):
        depth = np.clip(1 - np.hypot(y - centre[0], x - centre[1]) / 32, 0, 1)
        maps = np.stack([depth, depth]).astype(np.float32)
        found = nuclei.objects(maps, (96 // factor, 96 // factor), nuclei.mpp * factor)
        assert found.max() == 1
        moved.append(np.argwhere(found).mean(0) + 0.5 - centre / factor)
    np.testing.assert_allclose(np.mean(moved, 0), 0, atol=0.05)  # the nearest pixel: -.25


def test_points_keep_their_place_where_sizes_do_not_divide():
    image = np.full((101, 1003, 3), 220, np.uint8)
    truth = np.array([[990.0, 50.0]])
    model = fit(
        small_encoders.shared("cnn"),
        POINTS,
        [Labelled(image, truth, 0.125)],
        Training(steps=1, batch=2, side=64, encoder_lr=0),
    )
    maps = np.zeros((1, *(-(-n // 2) for n in (50, 502))), np.float32)
    where = (990.5 * 502 / 1003 / 2, 50.5 * 50 / 101 / 2)
    y, x = np.mgrid[: maps.shape[1], : maps.shape[2]] + 0.5
    maps[0] = np.exp(-((x - where[0]) ** 2 + (y - where[1]) ** 2) / 8)
    found = model.objects(maps, image.shape, 0.125)
    assert found[0, :2] == pytest.approx(truth[0], abs=0.3)


def test_bad_labels_are_refused():
    image, labels, _ = scene()
    with pytest.raises(ConfigError, match="same height and width"):
        fit(small_encoders.shared("cnn"), NUCLEI, [Labelled(image, labels[:-1], 0.5)], QUICK)
    with pytest.raises(ConfigError, match="no image"):
        fit(small_encoders.shared("cnn"), NUCLEI, [], QUICK)


def test_image_and_targets_move_together():
    image, labels, _ = scene()
    planes = augment.as_planes(image, (labels[None] > 0).astype(np.float32))
    rng = np.random.default_rng(0)
    for _ in range(10):
        view = augment.window(planes, 64, Augmentation(), rng)
        dark = view[1] < 140
        inner = view[3] > 0.99
        assert dark[inner].float().mean() > 0.98


def test_colours_change_and_stay_in_range():
    image, *_ = scene()
    planes = augment.as_planes(image)
    changed = augment.colours(planes, Augmentation(), np.random.default_rng(0))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert (changed - planes).abs().mean() > 1
    same = augment.colours(
        planes, Augmentation(stain=0, shift=0, light=0), np.random.default_rng(0)
    )
    assert torch.allclose(same, planes.clamp(min=1), atol=0.2)


def test_an_image_smaller_than_a_window():
    network = DenseNetwork(small_encoders.shared("cnn"), 2)
    assert network.read(torch.rand(3, 20, 33) * 255).shape == (2, 20, 33)

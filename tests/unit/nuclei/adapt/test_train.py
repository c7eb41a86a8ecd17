"""Pseudo-labels, augmentation and the label-free training, on synthetic nuclei."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_nuclei import tissue

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.nuclei import instances, maps
from pathencoder.nuclei.adapt import train, variations
from pathencoder.nuclei.adapt.pseudo_labels import (
    Rule,
    edge_contrast,
    make_pseudo_labels,
    passes,
    touching,
)
from pathencoder.nuclei.adapt.region_contrast import region_contrast
from pathencoder.nuclei.adapt.train import Recipe
from pathencoder.nuclei.adapt.variations import Variation
from pathencoder.nuclei.network import NucleiNetwork
from pathencoder.nuclei.scores import mean_stain, predict

pytestmark = pytest.mark.full
NONE = Variation(fade=0, hollow=0, paste=0, shift=0, shift_each=0, gain=0, gain_each=0)


def stain_maps(**settings):
    image, labels, _ = tissue(**settings)
    return maps.calibrate(image, "he").maps(image), labels


@pytest.fixture(scope="module")
def sample():
    found, _ = stain_maps()
    return make_pseudo_labels(found, mean_stain(found))


def test_round_uniform_objects_pass_and_slivers_do_not():
    labels = np.zeros((60, 60), np.int32)
    rows, columns = np.mgrid[:60, :60]
    labels[np.hypot(rows - 20, columns - 20) <= 7] = 1
    labels[50:53, 5:55] = 2
    labels[5:25, 40:44] = labels[5:9, 40:58] = 3  # an L
    found = np.where(labels > 0, 1, -1).astype(np.float32) + np.zeros((3, 1, 1), np.float32)
    assert passes(labels, found, Rule()).tolist() == [True, False, False]
    np.testing.assert_allclose(edge_contrast(labels, found[0]), 2)


def test_faint_objects_do_not_pass():
    found, labels = stain_maps()
    found[:, labels == 1] = found[:, labels == 1] * 0.1 - 0.9
    passed = passes(labels, found, Rule())
    assert not passed[0]
    assert passed[1:].all()


def test_surroundings_of_rejected_objects_are_ignored():
    found, _ = stain_maps()
    found[:, 60:100, 80:83] = found[:, 97:100, 50:110] = 1.5  # two dark fibres
    found[:, 100:150, 60:110] = 1.5 + np.random.default_rng(0).normal(0, 3, (50, 50))  # and a smear
    sample = make_pseudo_labels(found, mean_stain(found))
    assert (sample.weight[102:148, 62:108] == 0).mean() > 0.9
    assert (sample.labels[102:148, 62:108] == 0).mean() > 0.9
    assert sample.weight[:40].mean() > 0.95


def test_an_image_without_nuclei_has_no_pseudo_labels():
    nothing = np.full((3, 64, 64), -1, np.float32)
    assert make_pseudo_labels(nothing, mean_stain(nothing)) is None
    with pytest.raises(ConfigError, match="looks like a nucleus"):
        train.train([nothing], Recipe(rounds=(2,)))


def test_touching_pixels():
    labels = np.array([[1, 1, 2, 2], [0, 0, 0, 2]], np.int32)
    assert touching(labels).tolist() == [[False, True, True, False], [False, False, False, False]]


def test_without_variation_only_the_rotation_changes(sample):
    found, target = variations.draw([sample], 96, NONE, np.random.default_rng(0))
    assert found.shape == target.shape == (3, 96, 96)
    assert (found.mean(0)[(target[0] > 0) & (target[2] > 0)] > 0).mean() > 0.98


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_hollow_nuclei_are_pale_inside_and_keep_their_label(seed):
    found, _ = stain_maps()
    sample = make_pseudo_labels(found, mean_stain(found))
    plain = variations.draw([sample], 96, NONE, np.random.default_rng(seed))
    hollow = variations.draw(
        [sample], 96, dataclasses.replace(NONE, hollow=1.0), np.random.default_rng(seed)
    )
    # another turn, the same kind of target
    assert plain[1].sum() == pytest.approx(hollow[1].sum(), rel=0.3)
    middle = hollow[1][1] > 0.8
    if middle.any():
        assert hollow[0].mean(0)[middle].mean() < plain[0].mean(0)[plain[1][1] > 0.8].mean() - 0.4


def test_fading_blends_nuclei_with_their_surroundings(sample):
    rng = np.random.default_rng(1)
    faded, target = variations.draw(
        [sample], 96, dataclasses.replace(NONE, fade=1.0, fade_most=0.9), rng
    )
    plain, other = variations.draw([sample], 96, NONE, np.random.default_rng(1))
    assert faded.mean(0)[target[0] > 0].mean() < plain.mean(0)[other[0] > 0].mean() - 0.3


def test_paste_adds_a_nucleus_with_its_label(sample):
    canvas, labels, weight = (
        np.full((3, 64, 64), -1, np.float32),
        np.zeros((64, 64), np.int32),
        np.zeros((64, 64), np.float32),
    )
    patch = sample.patches[0]
    variations.paste(canvas, labels, weight, patch, np.random.default_rng(0))
    assert (labels == 1).sum() == patch.mask.sum()
    assert (weight[labels == 1] == 1).all()
    assert canvas[:, labels == 1].mean() > canvas[:, labels == 0].mean() + 0.5
    full = np.ones_like(labels)
    before = canvas.copy()
    variations.paste(canvas, full, weight, patch, np.random.default_rng(0))  # would cover another
    assert (canvas == before).all()


def test_targets_separate_touching_nuclei_and_measure_depth():
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 5:20], labels[10:30, 20:35] = 1, 2
    nucleus, depth, weight = variations.targets(labels, np.ones((40, 40), np.float32))
    assert not nucleus[10:30, 19:21].any()
    assert nucleus[15, 12] == 1
    assert depth.max() == 1
    assert depth[20, 12] > depth[20, 6]
    assert (weight[10:30, 5] == 0.5).all()
    assert weight[20, 12] == weight[20, 19] == 1


def test_small_images_are_mirrored_to_the_crop():
    found, _ = stain_maps(size=(50, 60), nuclei=4)
    sample = make_pseudo_labels(found, mean_stain(found))
    assert variations.draw([sample], 96, Variation(), np.random.default_rng(0))[0].shape == (
        3,
        96,
        96,
    )


def test_anchor_loss_looks_only_where_there_is_weight():
    target = torch.zeros(1, 3, 8, 8)
    target[:, 0, :4] = 1
    target[:, 2, :, :4] = 1
    good = torch.where(target[:, :2] > 0, 9.0, -9.0)
    good[:, 1] = -9.0
    worse_outside = good.clone()
    worse_outside[:, :, :, 4:] *= -1
    assert train.anchor_loss(good, target).item() < 0.05
    assert train.anchor_loss(worse_outside, target).item() == pytest.approx(
        train.anchor_loss(good, target).item(), abs=1e-5
    )
    assert train.anchor_loss(-good, target).item() > 2


def test_region_contrast_prefers_the_true_inside():
    found, labels = stain_maps()
    stack = torch.from_numpy(np.stack([found, found[:, ::-1].copy()]))
    right = torch.from_numpy(np.stack([labels, labels[::-1].copy()]) > 0).float() * 20 - 10
    assert region_contrast(right, stack) < region_contrast(right.roll(15, 2), stack) - 0.3
    assert region_contrast(torch.full_like(right, -30), stack).item() == 0


def test_training_learns_and_repeats():
    images = [stain_maps(seed=s)[0] for s in range(2)]
    short, steps = Recipe(rounds=(12, 12), batch=2, crop=64), []
    network = train.train(
        images, short, seed=3, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(i, 24) for i in range(25)]
    again = train.train(images, short, seed=3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    unseen, labels = stain_maps(seed=9)
    trained = metrics.dice(labels, instances.split(predict(network, unseen)[0]))
    untrained = metrics.dice(labels, instances.split(predict(NucleiNetwork().eval(), unseen)[0]))
    assert trained > max(0.7, untrained)


@pytest.mark.parametrize("stop", [9, 17])
def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(train, "EVERY", 4)
    images, file = [stain_maps(seed=0)[0]], tmp_path / "network.partial"
    short = Recipe(rounds=(12, 12), batch=2, crop=64, averaged=1.0)
    whole = train.train(images, short, seed=3)

    def stopping(done, total):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(images, short, seed=3, progress=stopping, checkpoint=file)
    steps = []
    again = train.train(
        images, short, seed=3, progress=lambda d, t: steps.append(d), checkpoint=file
    )
    assert steps == list(range(stop - stop % 4, 25))
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "EVERY", 2)
    images, file = [stain_maps(seed=0)[0]], tmp_path / "network.partial"
    short, firsts = Recipe(rounds=(4,), batch=2, crop=64), []
    stopped = train.Stopped(0, 2, None, {})
    train.Checkpoint(file, train.key_of(images, repr(short), 1)).write(stopped)
    train.train(images, short, seed=3, progress=lambda d, t: firsts.append(d), checkpoint=file)
    file.write_bytes(b"cut short")
    train.train(images, short, seed=3, progress=lambda d, t: firsts.append(d), checkpoint=file)
    assert firsts == [*range(5), *range(5)]


def test_images_are_cropped_to_the_pixels_that_training_uses(monkeypatch):
    image = stain_maps(size=(400, 600), nuclei=60)[0]
    assert [m.shape for m in train._limited([image])] == [image.shape]
    monkeypatch.setattr(train, "_MOST_PIXELS", 2 * 300 * 300)
    assert [m.shape for m in train._limited([image, image])] == [(3, 300, 300)] * 2


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="rounds"):
        Recipe(rounds=())
    with pytest.raises(ConfigError, match="nothing to learn"):
        Recipe(anchor=0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Variation(hollow=1.5)
    with pytest.raises(ConfigError, match="seed=4294967296"):
        train.train([], seed=2**32)


def test_the_level_is_that_of_the_stain_map():
    images = [stain_maps(seed=s)[0] for s in range(2)]
    torch.manual_seed(0)
    network = NucleiNetwork().eval()
    train.set_level(network, images)
    share = np.mean([predict(network, m)[0, ::2, ::2] > 0 for m in images])
    expected = np.mean([mean_stain(m)[::2, ::2] > 0 for m in images])
    assert share == pytest.approx(expected, abs=0.002)


def test_only_the_last_steps_are_averaged(monkeypatch):
    images = [stain_maps(seed=0)[0]]
    monkeypatch.setattr(train, "set_level", lambda network, images: None)
    short = Recipe(rounds=(6,), batch=2, crop=64, averaged=0.0)
    last, half, whole = (
        train.train(images, dataclasses.replace(short, averaged=a), seed=1).head.weight
        for a in (0.0, 0.5, 1.0)
    )
    assert not torch.equal(last, half)
    assert not torch.equal(half, whole)
    with pytest.raises(ConfigError, match="averaged"):
        Recipe(averaged=2)

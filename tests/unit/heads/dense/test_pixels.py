"""Classes of pixels: targets, loss, and a head that learns them."""

import numpy as np
import pytest
import small_encoders
import torch

from pathencoder.errors import ConfigError
from pathencoder.heads.dense import losses, objects, targets
from pathencoder.heads.dense.model import Labelled, fit
from pathencoder.heads.dense.tasks import TASKS, task_of
from pathencoder.heads.dense.train import Training

pytestmark = pytest.mark.full
COLOURS = np.array([(235, 215, 230), (110, 60, 140), (220, 120, 160)])


def scene(seed):
    """Blocks of three colours, and their classes."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, (4, 4)).repeat(32, 0).repeat(32, 1)
    noise = rng.normal(0, 6, (*classes.shape, 3))
    return np.clip(COLOURS[classes] + noise, 0, 255).astype(np.uint8), classes.astype(np.int32)


def test_targets_are_found_again_and_unknown_pixels_have_none():
    labels = np.array([[0, 1], [2, targets.IGNORED]])
    found = targets.classes(labels, 3)
    assert found.sum(0).tolist() == [[1, 1], [1, 0]]
    assert objects.classes(found)[labels < 3].tolist() == [0, 1, 2]


def test_the_loss_does_not_see_unknown_pixels():
    labels = np.zeros((8, 8), int)
    labels[:, 4:] = 1
    labels[:4] = targets.IGNORED
    target = torch.from_numpy(targets.classes(labels, 2))[None]
    right = torch.where(target > 0, 9.0, -9.0)
    wrong = right.clone()
    wrong[:, :, :4] = torch.randn(1, 2, 4, 8)
    assert losses.classes(right, target) < 0.01
    assert torch.equal(losses.classes(right, target), losses.classes(wrong, target))
    assert losses.classes(-right, target) > 1
    nothing = torch.zeros_like(target)
    assert losses.classes(right, nothing) == 0


def test_classes_of_another_image_are_found():
    task = task_of("pixels", ["background", "tumour", "stroma"])
    how = Training(steps=40, batch=4, side=64, lr=1e-2)
    images = [Labelled(*scene(seed), 0.5) for seed in range(2)]
    head = fit(small_encoders.shared("cnn"), task, images, how, mpp=0.5)
    image, classes = scene(9)
    maps = head.probabilities(image, 0.5)
    assert maps.shape == (3, 128, 128)
    assert np.allclose(maps.sum(0), 1, atol=1e-5)
    found = head.predict(image, 0.5)
    assert found.dtype == np.int32
    assert (found == classes).mean() > 0.9


def test_the_task_needs_its_classes():
    for classes in ((), ("tumour",)):
        with pytest.raises(ConfigError, match="at least two classes"):
            task_of("pixels", classes)
    with pytest.raises(ConfigError, match="the tasks are glands, nuclei, points, pixels"):
        task_of("cells")
    assert task_of("nuclei", ["a", "b"]) is TASKS["nuclei"]
    with pytest.raises(ConfigError, match="needs its classes"):
        fit(small_encoders.shared("cnn"), TASKS["pixels"], [Labelled(*scene(0), 0.5)], Training())


def test_patients_without_a_class_do_not_count_as_a_dice_of_zero():
    from pathencoder.heads.dense.scores import SCORING

    scoring = SCORING["pixels"]
    true, found = np.zeros((4, 4), int), np.zeros((4, 4), int)
    found[0, 0] = 1  # predicted, and no pixel of it is true
    scores = scoring.pool([scoring.count(true, found, 1.0)], ("background", "tumour"))
    assert np.isnan(scores["dice of tumour"])
    assert scores["mean dice"] == scores["dice of background"] == pytest.approx(30 / 31)

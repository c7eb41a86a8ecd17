"""The challenge's scores of glands, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pathencoder.errors import ConfigError
from pathencoder.gland_metrics import gland_scores

pytest.importorskip("scipy")


def _map(*boxes: tuple[int, int, int, int], side: int = 20) -> np.ndarray:
    """Boxes (top, left, bottom, right), numbered from 5 on, so that numbers have gaps."""
    labels = np.zeros((side, side), np.int32)
    for number, (top, left, bottom, right) in enumerate(boxes):
        labels[top:bottom, left:right] = 5 + 2 * number
    return labels


def test_equal_maps_score_one() -> None:
    labels = _map((0, 0, 5, 5), (8, 8, 12, 14))
    found = gland_scores([(labels, labels)], hausdorff=True)
    assert (found.f1, found.object_dice, found.object_hausdorff, found.dice) == (1, 1, 0, 1)


def test_a_merge_of_two_objects_is_one_hit() -> None:
    truth = _map((0, 0, 10, 4), (0, 5, 10, 7))
    merged = _map((0, 0, 10, 7))
    found = gland_scores([(truth, merged)])
    # one prediction, which covers the larger truth; the other truth is missed
    assert found.f1 == pytest.approx(2 / 3)
    of_truths = 40 / 60 * (2 * 40 / 110) + 20 / 60 * (2 * 20 / 90)
    assert found.object_dice == pytest.approx((of_truths + 2 * 40 / 110) / 2)


def test_less_than_half_of_the_truth_is_no_hit() -> None:
    truth, part = _map((0, 0, 10, 10)), _map((0, 0, 10, 4))
    assert gland_scores([(truth, part)]).f1 == 0
    assert gland_scores([(truth, _map((0, 0, 10, 5)))]).f1 == 1


def test_images_are_pooled_by_area() -> None:
    large, small = _map((0, 0, 20, 20)), _map((0, 0, 2, 5))
    nothing = np.zeros_like(small)
    found = gland_scores([(large, large), (small, nothing)])
    assert found.f1 == pytest.approx(2 / 3)
    assert found.object_dice == pytest.approx((400 / 410 + 1) / 2)
    assert found.dice == pytest.approx(800 / 810)


def test_distance_to_the_nearest_object_where_none_overlaps() -> None:
    truth = _map((0, 0, 2, 2))
    found = gland_scores([(truth, _map((0, 5, 2, 7), (10, 10, 12, 12)))], hausdorff=True)
    near, far = 5.0, np.hypot(10, 10)
    assert found.object_hausdorff == pytest.approx((near + (near + far) / 2) / 2)


def test_nothing_to_find_and_nothing_found() -> None:
    nothing = np.zeros((4, 4), int)
    assert gland_scores([(nothing, nothing)]).f1 == 1
    assert gland_scores([(nothing, _map((0, 0, 2, 2), side=4))]).object_dice == 0


def test_no_image_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no image"):
        gland_scores([])

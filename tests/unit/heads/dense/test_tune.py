"""What a detector of points chooses on images that it was not fitted on."""

import numpy as np
import pytest

from pathencoder.heads.dense import targets, tune
from pathencoder.heads.dense.tasks import POINTS, TASKS

pytestmark = pytest.mark.full


def heights(true, false, height):
    """A map at stride 2 with low peaks at true points and lower ones at false points."""
    low = targets.points(true, (128, 128), 3.0)[0] * height
    lower = targets.points(false, (128, 128), 3.0)[0] * (height - 0.2)
    return np.maximum(low, lower)[None]


def grid(offset):
    return np.stack(np.meshgrid(np.arange(14, 110, 28), np.arange(14, 110, 28)), -1).reshape(
        -1, 2
    ) + float(offset)


@pytest.mark.parametrize("height", [0.5, 0.8])
def test_the_threshold_keeps_true_peaks_and_drops_false_ones(height):
    maps = [heights(grid(0), grid(14), height)] * 2
    truths = [grid(0) * 2] * 2
    chosen = POINTS.tune(maps, truths, 0.25, {"apart_um": 2.0, "threshold": 0.35})
    # smoothing before the search for peaks lowers them a little
    assert height - 0.25 < chosen["threshold"] < height
    assert chosen["held_out_f1"] == 1
    assert chosen["held_out_images"] == 2
    kept = POINTS.objects(maps[0], 0.25, chosen)
    assert len(kept) == len(grid(0))


def test_of_equally_good_thresholds_the_middle_one_is_chosen():
    maps = [heights(grid(0), grid(14), 0.6)]
    chosen = POINTS.tune(maps, [grid(0) * 2], 0.25, {"apart_um": 2.0, "threshold": 0.35})
    peaks = POINTS.objects(maps[0], 0.25, {"apart_um": 2.0, "threshold": 0.15})[:, 2]
    low, high = (peaks[peaks > 0.5].min(), peaks[peaks < 0.5].max())
    assert abs(chosen["threshold"] - (low + high) / 2) < 0.03


def test_the_best_threshold_is_found_where_f1_falls_faster_above_it():
    """True peaks just above .5, false ones spread below it: .45 keeps too many of them."""
    rng = np.random.default_rng(0)
    true, false = (rng.uniform(0, 4000, (n, 2)) for n in (400, 400))
    points = np.concatenate(
        [
            np.column_stack([true, rng.uniform(0.5, 0.56, 400)]),
            np.column_stack([false, rng.uniform(0.2, 0.5, 400)]),
        ]
    )

    def find(_, threshold, apart, smoothing):
        return points[points[:, 2] >= threshold]

    chosen = tune.peaks([None], [true], 0.25, 2.0, find)
    assert 0.46 < chosen["threshold"] < 0.515


def test_a_smaller_distance_is_chosen_where_cells_are_near():
    pairs = np.concatenate([grid(0), grid(0) + np.array([6, 0])])
    maps = [targets.points(pairs, (128, 128), 1.5)]
    wide = {"apart_um": 3.6, "threshold": 0.35}
    assert len(POINTS.objects(maps[0], 0.25, wide)) == len(grid(0))
    chosen = POINTS.tune(maps, [pairs * 2], 0.25, wide)
    assert chosen["apart_um"] < 3.6
    assert chosen["held_out_f1"] == 1


def test_a_rough_map_is_smoothed_more_and_a_smooth_one_is_not():
    smooth = targets.points(grid(0), (128, 128), 2.4)
    rough = smooth + np.random.default_rng(0).normal(0, 0.5, smooth.shape).astype(np.float32)
    sizes = {"apart_um": 1.2, "threshold": 0.35}
    for heights, smoothing in ((smooth, 0.35), (rough, 0.8)):
        chosen = POINTS.tune([heights], [grid(0) * 2], 0.25, sizes)
        assert chosen["smoothing_um"] == smoothing
        assert chosen["held_out_f1"] > 0.9
        assert len(POINTS.objects(heights, 0.25, chosen)) == pytest.approx(len(grid(0)), rel=0.2)


def test_a_head_of_before_smooths_as_it_did():
    maps = targets.points(grid(0), (128, 128), 2.0)
    sizes = {"apart_um": 1.2, "threshold": 0.35}
    before, now = (
        POINTS.objects(maps, 0.25, sizes | more) for more in ({}, {"smoothing_um": 0.35})
    )
    np.testing.assert_array_equal(before, now)


def test_whole_groups_are_held_out():
    groups = [f"p{i // 3}" for i in range(30)]
    held = tune.held_out(groups)
    assert 3 <= len(held) <= 5
    assert not {groups[i] for i in held} & {g for i, g in enumerate(groups) if i not in held}
    assert held == tune.held_out(groups)


def test_images_without_groups_are_groups_of_their_own():
    assert len(tune.held_out([""] * 12)) == 2


def test_too_few_groups_hold_nothing_out():
    assert tune.held_out(["a", "b", "c", "a", "b", "c", "a"]) == []


def test_a_group_of_most_images_stays_in_the_training():
    groups = ["large"] * 40 + [f"p{i}" for i in range(8)]
    for seed in range(5):
        assert "large" not in {groups[i] for i in tune.held_out(groups, seed)}


def test_images_without_points_choose_nothing():
    empty = np.zeros((1, 32, 32), np.float32)
    sizes = {"apart_um": 2.0, "threshold": 0.35}
    assert POINTS.tune([empty], [np.zeros((0, 2))], 0.25, sizes) == {}


def test_other_tasks_are_fitted_on_every_image():
    assert [name for name, task in TASKS.items() if task.tune] == ["points"]


def test_what_was_chosen_is_said():
    sizes = {"threshold": 0.45, "apart_um": 2.2}
    assert "0.45, the smallest distance of two cells, 2.2 um, and the" in tune.notes(sizes)[0]
    assert "smoothing of the map, 0.35 um, were not" in tune.notes(sizes)[0]
    sizes |= {"held_out_f1": 0.8123, "held_out_images": 4.0}
    assert tune.notes(sizes)[0].startswith("4 images were not trained on")
    assert "F1 0.812" in tune.notes(sizes)[0]
    assert tune.notes({"smallest_um2": 3.0}) == []

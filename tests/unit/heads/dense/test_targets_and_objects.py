"""What dense heads learn, and the objects that are read from it again."""

import numpy as np
import pytest

from pathencoder.heads.dense import objects, targets
from pathencoder.heads.dense.resize import resized_labels
from pathencoder.heads.dense.tasks import TASKS
from pathencoder.matching import match_points
from pathencoder.metrics import instance_scores

pytestmark = pytest.mark.full


def disks(*circles, side=96):
    y, x = np.mgrid[:side, :side] + 0.5
    labels = np.zeros((side, side), np.int32)
    for number, (cy, cx, radius) in enumerate(circles, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels


TOUCHING = disks((48, 35, 16), (48, 66, 16), (15, 15, 8))


def test_touching_glands_are_found_again():
    labels = disks((48, 32, 14), (48, 62, 14), (15, 15, 8))
    found = objects.glands(targets.glands(labels, 2.0), smallest=20)
    assert found.max() == 3
    assert instance_scores(labels, found).aji > 0.97


def test_a_hole_in_a_gland_belongs_to_it():
    maps = targets.glands(disks((48, 48, 30)), 2.0)
    maps[0, 40:50, 40:50] = 0
    found = objects.glands(maps, smallest=20)
    assert found.max() == 1
    assert found[45, 45] == 1


def test_touching_nuclei_are_found_again():
    found = objects.nuclei(targets.nuclei(TOUCHING), smallest=20)
    assert found.max() == 3
    assert instance_scores(TOUCHING, found).aji > 0.97


def test_a_large_nucleus_of_two_low_peaks_is_one_object():
    inside = disks((48, 48, 30)) > 0
    y, x = np.mgrid[:96, :96] - 47.5
    peaks = np.exp(-((abs(x) - 12) ** 2 + y**2) / 50)
    maps = np.stack([inside, inside * (0.94 + 0.06 * peaks)]).astype(np.float32)
    assert objects.nuclei(maps, smallest=20).max() == 1
    assert objects.nuclei(maps, smallest=20, rise=0.01).max() == 2


def test_peaks_are_joined_as_by_h_maxima():
    ndimage = pytest.importorskip("scipy.ndimage")
    morphology = pytest.importorskip("skimage.morphology")
    noise = np.random.default_rng(0).random((96, 96)).astype(np.float32)
    depth = ndimage.gaussian_filter(noise, 4)
    depth = (depth - depth.min()) / np.ptp(depth)
    maps = np.stack([np.ones_like(depth), depth])
    for rise in (0.05, 0.1, 0.3):
        found = objects.nuclei(maps, smallest=1, smoothing=0, apart=1, rise=rise)
        _, expected = ndimage.label(morphology.h_maxima(depth, rise), np.ones((3, 3)))
        assert found.max() == expected
    assert found.min() == 1  # every pixel belongs to an object


def test_small_objects_are_dropped():
    labels = disks((48, 48, 16), (10, 10, 2))
    assert objects.nuclei(targets.nuclei(labels), smallest=40).max() == 1


def test_depth_is_one_in_the_middle_of_every_nucleus():
    inside, depth = targets.nuclei(TOUCHING)
    assert [depth[k == TOUCHING].max() for k in (1, 2, 3)] == [1, 1, 1]
    assert (depth[TOUCHING == 0] == 0).all()
    assert np.array_equal(inside, TOUCHING > 0)


def test_points_are_found_within_half_a_pixel():
    rng = np.random.default_rng(0)
    true = np.stack(np.meshgrid(np.arange(8, 90, 11), np.arange(8, 90, 11)), -1).reshape(-1, 2)
    true = true + rng.uniform(-0.5, 0.5, true.shape)
    heights = targets.points(true, (96, 96), 2.4)[0]
    found = objects.points(heights, threshold=0.5, apart=3, smoothing=0.7)
    pairs = match_points(true, found[:, :2], 0.5)
    assert len(pairs) == len(true) == len(found)


def test_a_point_at_the_border_is_kept():
    heights = targets.points(np.array([[0.4, 30.5]]), (64, 64), 2)[0]
    found = objects.points(heights, threshold=0.5, apart=3, smoothing=0.7)
    assert len(found) == 1


def test_an_image_without_objects():
    nothing = np.zeros((32, 32), np.int32)
    for name in ("glands", "nuclei"):
        task = TASKS[name]
        maps = task.targets(nothing, nothing.shape, 0.5)
        assert task.objects(maps, 0.5, task.sizes([nothing], 0.5)).max() == 0
    assert not targets.points(np.zeros((0, 2)), (32, 32), 2).any()
    assert TASKS["points"].sizes([np.zeros((0, 2))], 0.25)["apart_um"] > 0


def test_the_smallest_object_is_learned_in_micrometres():
    sizes = TASKS["nuclei"].sizes([disks((48, 48, 10))], 0.5)
    assert sizes["smallest_um2"] == pytest.approx(np.pi * 10**2 * 0.25 / 4, rel=0.03)


@pytest.mark.parametrize("fine", [40, 20, 27, 160])
def test_labels_of_another_size_stay_in_place(fine):
    rng, y, x = np.random.default_rng(0), *np.mgrid[:80, :80] + 0.5
    moved, areas = [], []
    for centre in rng.uniform(30, 50, (100, 2)):
        disc = np.int32(np.hypot(y - centre[0], x - centre[1]) < 12)
        found = resized_labels(disc, (fine, fine))
        assert found.shape == (fine, fine)
        moved.append(np.argwhere(found).mean(0) + 0.5 - centre * fine / 80)
        areas.append(found.sum() * (80 / fine) ** 2 / disc.sum())
    np.testing.assert_allclose(np.mean(moved, 0), 0, atol=0.03)  # the nearest pixel: -.25
    assert np.mean(areas) == pytest.approx(1, abs=0.03)

import numpy as np
import pytest

from pathencoder.nuclei.outlines import contours
from pathencoder.nuclei.polygons import area_between, corners, is_simple
from pathencoder.tracing import CORNERS, Rings, trace

pytestmark = pytest.mark.full


def blobs(seed=0, size=(150, 200)):
    """Objects of all forms, of one pixel and up, 8-connected and with holes."""
    from scipy import ndimage

    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 0.8 + seed % 3)
    labels, _ = ndimage.label(rough > np.quantile(rough, 0.7), np.ones((3, 3)))
    return labels.astype(np.int32)


def area(ring):
    x, y = ring.T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


def rings(*points):
    closed = [np.array([*ring, ring[0]], float) for ring in points]
    return Rings(np.concatenate(closed), np.append(0, np.cumsum([len(r) for r in closed])))


def overlap(a, b):
    """Intersection over union of two outlines, on a grid of eighths of a pixel."""
    from skimage.draw import polygon2mask

    corner = np.minimum(a.min(0), b.min(0)) - 1
    shape = np.ceil(8 * (np.maximum(a.max(0), b.max(0)) + 1 - corner)).astype(int)
    one, other = (polygon2mask(shape, 8 * (ring - corner) + 0.03) for ring in (a, b))
    return (one & other).sum() / (one | other).sum()


def test_every_outline_is_that_of_marching_squares():
    from skimage.measure import find_contours

    labels = blobs(1)
    for label, ring in contours(labels):
        expected = find_contours(np.pad(labels == label, 1).astype(float), 0.5)
        largest = max((r[:, ::-1] - 0.5 for r in expected), key=area)
        assert {tuple(p) for p in ring} == {tuple(p) for p in largest}
        assert area(ring) == pytest.approx(area(largest))


def test_hard_objects_have_valid_outlines():
    labels = np.zeros((40, 40), np.int32)
    labels[5, 5] = 1
    labels[10:12, 10:12] = labels[12:14, 12:14] = 2  # two parts that touch at a corner
    labels[20:30, 20:30] = 7
    labels[23:26, 23:26] = 0  # a hole; and numbers are missing
    labels[0:3, 37:40] = 9  # at the border
    found = {label: ring for label, ring in contours(labels, 0.5)}
    assert {label: area(ring) for label, ring in found.items()} == {
        1: 0.5,
        2: 3.5,
        7: pytest.approx(99.5, abs=1),
        9: 8.5,
    }
    assert all((ring[0] == ring[-1]).all() and len(ring) > 3 for ring in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_simplified_outlines_are_valid_and_close(seed):
    labels = blobs(seed)
    full, short = dict(contours(labels)), dict(contours(labels, 0.5))
    assert list(full) == list(short)
    for label, ring in short.items():
        assert is_simple(Rings(ring, np.array([0, len(ring)]))).all()
        assert overlap(ring, full[label]) > 0.97  # 0.98, and what the grid does not resolve
    assert sum(map(len, short.values())) < 0.75 * sum(map(len, full.values()))


def test_a_large_round_object_needs_few_points():
    rows, columns = np.mgrid[:60, :60]
    disk = (np.hypot(rows - 30, columns - 30) < 20).astype(np.int32)
    (_, full), (_, short) = next(contours(disk)), next(contours(disk, 0.5))
    assert len(short) < 0.3 * len(full)
    assert overlap(full, short) > 0.975


def test_objects_in_several_bands_are_all_found(monkeypatch):
    from pathencoder.nuclei import outlines

    labels = blobs(2)
    whole = dict(contours(labels))
    monkeypatch.setattr(outlines, "_BAND", 16)
    parts = dict(contours(labels))
    assert parts.keys() == whole.keys()
    assert all(area(parts[n]) == area(whole[n]) for n in whole)


def test_outlines_along_the_edges_hold_exactly_the_pixels_of_an_object():
    labels = blobs(1)
    numbers, found = trace(labels, CORNERS)
    areas = found.areas()
    for label in range(1, labels.max() + 1):
        assert areas[numbers == label].sum() == (labels == label).sum()
    assert (found.points == np.rint(found.points)).all()


def test_no_object_has_no_outline():
    assert len(trace(np.zeros((9, 9), np.int32))[1]) == 0
    assert list(contours(np.zeros((9, 9), np.int32), 0.5)) == []


def test_what_is_a_simple_outline():
    square = [(0, 0), (4, 0), (4, 4), (0, 4)]
    bow = [(0, 0), (4, 4), (4, 0), (0, 4)]
    touching = [(0, 0), (2, 2), (4, 0), (4, 4), (2, 2), (0, 4)]
    spike = [(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)]
    comb = [(0, 0), (9, 0), (9, 9), (8, 1), (7, 9), (6, 1), (5, 9), (4, 1), (3, 9), (2, 1), (1, 9)]
    line = [(0, 0), (4, 0)]
    twice = square + square
    found = is_simple(rings(square, square[::-1], bow, touching, spike, comb, line, twice))
    assert found.tolist() == [True, False, False, False, False, True, False, False]


def test_corners_are_kept_and_the_removed_area_is_measured():
    bent = rings([(0, 0), (2, 0), (4, 0), (4, 2), (4.4, 3), (4, 4), (0, 4)])
    kept = corners(bent, 0.5)
    assert kept.tolist() == [True, False, True, False, False, True, True, True]
    assert area_between(bent, kept)[0] == pytest.approx(0.4, rel=0.1)
    assert corners(bent, 0.3)[4]

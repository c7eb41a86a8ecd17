"""Slides as fields for the robustness table; k-NN of tiles whose colours are shifted."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_slides import section, write_tiff

from pathencoder.errors import ConfigError
from training.evaluation.robustness import (
    UNSEEN,
    Neighbours,
    background,
    changed_by,
    fields_of,
    knn_under_shifts,
    under_shift,
)
from training.evaluation.sets import own_set

pytestmark = pytest.mark.full
COLOURS = {"pink": (180, 140, 170), "violet": (165, 120, 175)}


def tiles(folder, *, split="test"):
    """Tiles of two colours, four a group, and their table; every second group is evaluated."""
    rows, g = ["file,label,group,split"], np.random.default_rng(0)
    for i in range(80):
        label, group = ("pink", "violet")[i % 2], i // 4
        noise = np.clip(np.array(COLOURS[label]) + g.normal(0, 8, (8, 8, 3)), 0, 255)
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{label},g{group},{split if group % 2 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return own_set(folder / "labels.csv", choose=False)


def by(row):
    """An encoder that embeds each image by `row`."""
    return SimpleNamespace(embed_images=lambda images: np.stack([row(x) for x in images]))


def neighbours(wrong, *, groups=10):
    """Two classes in each of `groups`, all found; under the shift the first `wrong` are not."""
    y = np.tile([0, 1], groups)
    moved = np.where(np.arange(len(y)) < wrong, 1 - y, y)
    return Neighbours(y, np.repeat(np.arange(groups).astype(str), 2), y, {"hue": [moved, y]})


def test_the_robustness_evaluation_cuts_a_slide_into_fields(tmp_path):
    pixels = section(256, 200, ((0, 0, 256, 200),))
    fields = fields_of(write_tiff(tmp_path / "scan.tiff", pixels, levels=(1, 2)))
    assert len(fields) == 16
    assert np.array_equal(
        np.vstack([np.hstack(fields[i : i + 4]) for i in range(0, 16, 4)]), pixels
    )


def test_neighbours_by_hue_change_with_it_and_those_by_brightness_do_not(tmp_path):
    s = tiles(tmp_path)
    hue = by(lambda x: np.array([x[..., 0].mean() - x[..., 2].mean(), 20.0]))
    brightness = by(lambda x: np.array([x.mean() - 160, 20.0]))
    found = [knn_under_shifts(subject, s, draws=6) for subject in (hue, brightness)]
    for one in found:
        assert one.y.tolist() == [0, 1] * 20
        assert np.array_equal(one.unchanged, one.y)
        assert {name: len(x) for name, x in one.shifted.items()} == dict.fromkeys(UNSEEN, 6)
    assert changed_by(found[:1], "hue").value < -0.05
    assert changed_by(found[1:], "hue").value == 0


def test_the_change_is_a_mean_over_draws_and_sets_whatever_their_sizes():
    # of one of two draws, 4 of 20 and 4 of 40 tiles are wrong
    change = changed_by([neighbours(4), neighbours(4, groups=20)], "hue")
    assert change.value == pytest.approx(-(4 / 20 / 2 + 4 / 40 / 2) / 2)
    assert change.low < change.value < change.high <= 0
    wider = changed_by([neighbours(4)], "hue")
    assert wider.high - wider.low > change.high - change.low
    still = changed_by([neighbours(0)] * 2, "hue")
    assert (still.value, still.low, still.high) == (0, 0, 0)


def test_a_set_without_a_test_part_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs a test part; this set has folds alone"):
        knn_under_shifts(by(lambda x: x.mean((0, 1))), tiles(tmp_path, split="train"))


def test_shifts_and_the_centre_are_measured_on_tiles_to_the_end_of_the_table(tmp_path):
    s, seen = tiles(tmp_path), []

    def rows(images):
        seen.append(images)
        return np.stack([x.mean((0, 1)) for x in images])

    subject = SimpleNamespace(embed_images=rows)
    under_shift(subject, s, most=30)
    background(subject, s, most=30)
    plain, _, train = seen
    for part, images in (("test", plain), ("train", train)):
        files = [f for f, its in zip(s.labels.files, s.labels.split, strict=True) if its == part]
        assert (len(files), len(images)) == (40, 30)
        for file, image in ((files[0], images[0]), (files[-1], images[-1])):
            assert np.array_equal(image, np.asarray(Image.open(tmp_path / file)))

"""The dense protocol: a linear decoder on frozen feature maps, for nuclei, glands and cell centres.

An image is resampled to the set's scale and cut into windows of the encoder's input size. The maps
of `encoder.pyramid` are enlarged to a grid of 4 px, concatenated and standardised, and each
position is classified by logistic regression: a 1 x 1 convolution, fitted on positions drawn from
the training images. Its C and its threshold are chosen on a fifth of the training groups. Nothing
is fine-tuned or augmented: the features are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.model_selection import GroupKFold

from pathencoder.encoder import Encoder
from pathencoder.images import open_image
from pathencoder.matching import match_points
from training.evaluation import pixel_regression
from training.evaluation.annotations import Picture, open_labels, read_pictures, read_points
from training.evaluation.dense_maps import GRID, Decoder, Floats, maps_of
from training.evaluation.pixel_regression import Regression

# features [N, C] and labels [N] of positions of one image
_Drawn = tuple[Floats, NDArray[np.bool_]]
PROTOCOL = 2  # of the figures here: another number computes them again
POSITIONS = 800  # drawn of a training image
MOST_POSITIONS = 40_000  # of all training images together: of more images each gives fewer
FOLDS = 5
CHOSEN_ON = 6  # held-out training images on which C and the threshold are chosen
CS = (1e-4, 1e-2, 1.0)
THRESHOLDS = np.arange(0.2, 0.75, 0.05)
# positions within this distance of a cell's centre are positive; also the least distance of two
# predicted cells
CENTRE_UM = 1.65
MATCH_UM = 3.3  # 6 px at 20x, the field's radius
_FINE = 2  # px between two values of the map in which cells are looked for


@dataclass(frozen=True)
class DenseSet:
    """A labelled set.

    Attributes:
        name: Its folder below nuclei/.
        mpp: The scale at which images are read, um/px.
        points: Its labels are cell centres instead of masks.
        test: The part that is reported.
    """

    name: str
    mpp: float
    points: bool = False
    test: str = "test"


SETS = (
    DenseSet("monuseg", 0.25),
    DenseSet("glas", 0.5, test="testA"),
    DenseSet("crchisto", 0.25, points=True),
)


@dataclass(frozen=True)
class Score:
    """Counts of one image: pixels, or cells of point sets.

    Attributes:
        file: Its name.
        group: Its patient or slide.
        hit: Predicted correctly.
        predicted: Predicted.
        true: In the labels.
    """

    file: str
    group: str
    hit: int
    predicted: int
    true: int

    @property
    def dice(self) -> float:
        """2 hit / (predicted + true): Dice of masks, F1 of cells; 1 where both are empty."""
        total = self.predicted + self.true
        return 2 * self.hit / total if total else 1.0


@dataclass(frozen=True)
class Evaluated:
    """What an encoder reached on a set.

    Attributes:
        scores: For each seed the counts of every evaluated image, in the order of the pictures.
        positions: On which each decoder was fitted, in all training images of a fold.
        unfinished: Decoders whose fit did not converge.
        fits: Decoders that were fitted.
    """

    scores: list[list[Score]]
    positions: int
    unfinished: int
    fits: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures should know."""
        fitted = f"decoders fitted on {self.positions:,} positions"
        if not self.unfinished:
            return (fitted,)
        steps = pixel_regression.MOST_STEPS
        return (
            fitted,
            f"{self.unfinished} of {self.fits} fits did not converge in {steps} steps",
        )


def pictures_of(s: DenseSet, data: Path, *, choose: bool) -> list[Picture]:
    """The images of a set, from its meta.csv.

    Args:
        s: The set.
        data: Folder with nuclei/.
        choose: Images of the train part alone.

    Returns:
        The images, in the order of the table.

    Raises:
        ConfigError: The table is missing, lacks a column, or has no rows of these parts.
    """
    parts = ("train",) if choose else ("train", s.test)
    return read_pictures(data / "nuclei" / s.name, parts, s.mpp)


def evaluate(
    encoder: Encoder,
    s: DenseSet,
    pictures: Sequence[Picture],
    *,
    choose: bool,
    seeds: Sequence[int] = (0,),
) -> Evaluated:
    """Fit the decoder and evaluate it. Every image runs through the network once or twice.

    Args:
        encoder: The frozen encoder.
        s: The set.
        pictures: Its images.
        choose: By folds over groups of the train part, instead of on the test part after a fit on
            the whole train part.
        seeds: Of the positions that a decoder is fitted on.

    Returns:
        The counts, and how the decoders were fitted.

    Raises:
        ConfigError: The maps are not finite, or the training images have no labelled object.
    """
    drawn = _draw(encoder, s, pictures, seeds)
    scores: list[dict[int, Score]] = [{} for _ in seeds]
    positions, fits = 0, list[Regression]()
    for train, held_out in _folds(pictures, choose=choose):
        decoders, fitted = _fit(encoder, s, pictures, drawn, train)
        fits += fitted
        positions = max(positions, sum(len(d[0][1]) for i in train if (d := drawn[i])))
        for i in held_out:
            maps = maps_of(encoder, read_image(pictures[i], s.mpp))
            truth = truth_of(s, pictures[i], maps.shape)
            for seed, map_ in enumerate(maps.probabilities(decoders)):
                threshold = [decoders[seed].threshold]
                (scores[seed][i],) = _scores(s, pictures[i], truth, map_, threshold)
    unfinished = sum(not f.converged for f in fits)
    ordered = [[by_image[i] for i in sorted(by_image)] for by_image in scores]
    return Evaluated(ordered, positions, unfinished, len(fits))


def mean_score(s: DenseSet, scores: Sequence[Score]) -> float:
    """Mean Dice over images; of point sets F1 of the counts pooled over the images."""
    if not s.points:
        return float(np.mean([x.dice for x in scores]))
    total = sum(x.predicted + x.true for x in scores)
    return 2 * sum(x.hit for x in scores) / total if total else 1.0


def _folds(pictures: Sequence[Picture], *, choose: bool) -> list[tuple[list[int], list[int]]]:
    if not choose:
        parts = [p.split == "train" for p in pictures]
        return [([i for i, t in enumerate(parts) if t], [i for i, t in enumerate(parts) if not t])]
    groups = [p.group for p in pictures]
    folds = GroupKFold(min(FOLDS, len(set(groups)))).split(groups, groups=groups)
    return [(a.tolist(), b.tolist()) for a, b in folds]


def _fit(
    encoder: Encoder,
    s: DenseSet,
    pictures: Sequence[Picture],
    drawn: Sequence[Sequence[_Drawn] | None],
    train: list[int],
) -> tuple[list[Decoder], list[Regression]]:
    """A decoder for each seed, fitted on all training images; and every fit.

    C and threshold are chosen on the first of five folds of them.
    """
    groups = [pictures[i].group for i in train]
    inner = next(GroupKFold(min(FOLDS, len(set(groups)))).split(groups, groups=groups))
    fit_on, held_out = ([train[j] for j in part] for part in inner)
    seeds = range(len(next(d for d in drawn if d is not None)))
    candidates = [f for seed in seeds for f in _regressions(drawn, fit_on, CS, seed)]
    found: list[list[list[Score]]] = [[] for _ in candidates]  # by image, then by threshold
    for i in held_out[:CHOSEN_ON]:
        maps = maps_of(encoder, read_image(pictures[i], s.mpp))
        truth = truth_of(s, pictures[i], maps.shape)
        probabilities = maps.probabilities([_decoder(f) for f in candidates])
        for by_image, map_ in zip(found, probabilities, strict=True):
            by_image.append(_scores(s, pictures[i], truth, map_, THRESHOLDS.tolist()))
    values = np.array(
        [[mean_score(s, scores) for scores in zip(*by_image, strict=True)] for by_image in found]
    ).reshape(len(seeds), len(CS), len(THRESHOLDS))
    decoders, final = [], []
    for seed in seeds:
        c, threshold = np.unravel_index(int(np.argmax(values[seed])), values[seed].shape)
        final += _regressions(drawn, train, [CS[c]], seed)
        decoders.append(_decoder(final[-1], float(THRESHOLDS[threshold])))
    return decoders, [*candidates, *final]


def _regressions(
    drawn: Sequence[Sequence[_Drawn] | None], used: Sequence[int], cs: Sequence[float], seed: int
) -> list[Regression]:
    parts = [part[seed] for i in used if (part := drawn[i]) is not None]
    x, y = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    return pixel_regression.fit(x, y, cs)


def _decoder(fitted: Regression, threshold: float = 0.5) -> Decoder:
    return Decoder(fitted.weights.astype(np.float32), fitted.bias, threshold)


def _draw(
    encoder: Encoder, s: DenseSet, pictures: Sequence[Picture], seeds: Sequence[int]
) -> list[list[_Drawn] | None]:
    """Features and labels of positions drawn uniformly from each training image, by seed."""
    images = sum(p.split == "train" for p in pictures)
    most = min(POSITIONS, MOST_POSITIONS // max(1, images))
    drawn: list[list[_Drawn] | None] = []
    for i, picture in enumerate(pictures):
        if picture.split != "train":
            drawn.append(None)
            continue
        maps = maps_of(encoder, read_image(picture, s.mpp))
        truth = grid_truth(s, picture, maps.shape).ravel()
        rngs = [np.random.default_rng((seed, i)) for seed in seeds]
        count = min(most, truth.size)
        places = [rng.choice(truth.size, count, replace=False) for rng in rngs]
        features = np.split(maps.at(np.concatenate(places)), len(seeds))
        drawn.append([(x, truth[place]) for x, place in zip(features, places, strict=True)])
    return drawn


def read_image(picture: Picture, mpp: float) -> NDArray[np.uint8]:
    """The image resampled to `mpp` um/px: uint8 [H, W, 3]."""
    image = Image.fromarray(open_image(picture.file))
    return np.asarray(image.resize(_size(image.size, picture.mpp / mpp), Image.Resampling.BICUBIC))


def grid_truth(s: DenseSet, picture: Picture, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The labels on the grid.

    Args:
        s: The set.
        picture: The image.
        shape: Of the grid, (h, w).

    Returns:
        bool [h, w]: the position is in a nucleus or gland, or near the centre of a cell.
    """
    if s.points:
        away = np.ones(shape, bool)
        for y, x in np.round(centres_of(s, picture) / GRID - 0.5).astype(int):
            away[min(max(y, 0), shape[0] - 1), min(max(x, 0), shape[1] - 1)] = False
        near: NDArray[np.bool_] = ndimage.distance_transform_edt(away) * GRID * s.mpp <= CENTRE_UM
        return near
    mask = open_labels(picture.file) > 0
    resized = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (shape[1], shape[0]), Image.Resampling.BOX
    )
    return np.asarray(resized) >= 128


def centres_of(s: DenseSet, picture: Picture) -> NDArray[np.float64]:
    """Cell centres [N, 2], y and x in px at the scale of the set."""
    points, _ = read_points(picture.file)
    return points[:, ::-1] * picture.mpp / s.mpp


def truth_of(s: DenseSet, picture: Picture, shape: tuple[int, int]) -> NDArray[Any]:
    """What maps of a picture are compared with: centres of cells, or the labels on the grid."""
    return centres_of(s, picture) if s.points else grid_truth(s, picture, shape)


def _scores(
    s: DenseSet,
    picture: Picture,
    truth: NDArray[Any],
    found: Floats,
    thresholds: Sequence[float],
) -> list[Score]:
    """The counts of a map of probabilities at each threshold."""
    if s.points:
        cells, heights = _maxima(found, min(thresholds), s.mpp)
        by_threshold = [cells[heights > t] for t in thresholds]
        pairs = [match_points(truth, c, MATCH_UM / s.mpp) for c in by_threshold]
        counts = [(len(p), len(c), len(truth)) for p, c in zip(pairs, by_threshold, strict=True)]
    else:
        total, masks = int(truth.sum()), [found > t for t in thresholds]
        counts = [(int((truth & mask).sum()), int(mask.sum()), total) for mask in masks]
    return [Score(picture.file.name, picture.group, *count) for count in counts]


def peaks(found: Floats, threshold: float, mpp: float) -> NDArray[np.float64]:
    """Cells: local maxima of a probability map.

    Args:
        found: Probabilities on the grid [h, w].
        threshold: Lower maxima are no cells.
        mpp: Scale of the set, um/px.

    Returns:
        y and x in px at the scale of the set [N, 2]; no two are nearer than CENTRE_UM.
    """
    return _maxima(found, threshold, mpp)[0]


def _maxima(found: Floats, threshold: float, mpp: float) -> tuple[NDArray[np.float64], Floats]:
    """The cells of `peaks`, and the smoothed probability at each."""
    smooth = ndimage.gaussian_filter(_finer(found), 1.0)
    size = 2 * round(CENTRE_UM / mpp / _FINE) + 1
    top = (smooth == ndimage.maximum_filter(smooth, size)) & (smooth > threshold)
    plateaus, count = ndimage.label(top, np.ones((3, 3)))  # equal neighbours are one cell
    places = range(1, count + 1)
    centres = np.array(ndimage.center_of_mass(top, plateaus, places)).reshape(-1, 2)
    heights = np.asarray(ndimage.maximum(smooth, plateaus, places), np.float32)
    return (centres + 0.5) * _FINE, heights


def _finer(found: Floats) -> Floats:
    """A map on the grid, enlarged to one value for _FINE px."""
    height, width = (n * GRID // _FINE for n in found.shape)
    enlarged = Image.fromarray(found).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(enlarged, dtype=np.float32)


def _size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

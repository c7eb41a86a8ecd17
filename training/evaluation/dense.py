"""The dense protocol: a linear decoder on frozen feature maps, for nuclei, glands and cell centres.

An image is resampled to the set's scale and cut into windows of the encoder's input size. The maps
of `encoder.pyramid` are enlarged to a grid of 4 px, concatenated and standardised, and each
position is classified by logistic regression: a 1 x 1 convolution. Its C and its threshold are
chosen on a fifth of the training groups. Nothing is fine-tuned or augmented: the features are
compared.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from pathencoder.encoder import Encoder
from pathencoder.images import open_image
from pathencoder.metrics import match_points
from training.evaluation.annotations import Picture, open_labels, read_pictures, read_points
from training.evaluation.dense_maps import GRID, Decoder, Floats, maps_of

# features [N, C] and labels [N] of positions of one image
_Drawn = tuple[Floats, NDArray[np.bool_]]
POSITIONS = 800  # drawn of a training image
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
) -> list[list[Score]]:
    """Fit the decoder and evaluate it. Every image runs through the network once or twice.

    Args:
        encoder: The frozen encoder.
        s: The set.
        pictures: Its images.
        choose: By folds over groups of the train part, instead of on the test part after a fit on
            the whole train part.
        seeds: Of the positions that a decoder is fitted on.

    Returns:
        For each seed the counts of every evaluated image, in the order of `pictures`.
    """
    drawn = _draw(encoder, s, pictures, seeds)
    scores: list[dict[int, Score]] = [{} for _ in seeds]
    for train, held_out in _folds(pictures, choose=choose):
        decoders = _fit(encoder, s, pictures, drawn, train)
        for i in held_out:
            found = maps_of(encoder, read_image(pictures[i], s.mpp)).probabilities(decoders)
            for seed, (decoder, map_) in enumerate(zip(decoders, found, strict=True)):
                scores[seed][i] = _score(s, pictures[i], map_, decoder.threshold)
    return [[by_image[i] for i in sorted(by_image)] for by_image in scores]


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
) -> list[Decoder]:
    """A decoder for each seed, fitted on all training images.

    C and threshold are chosen on the first of five folds of them.
    """
    groups = [pictures[i].group for i in train]
    inner = next(GroupKFold(min(FOLDS, len(set(groups)))).split(groups, groups=groups))
    fit_on, held_out = ([train[j] for j in part] for part in inner)
    seeds = range(len(next(d for d in drawn if d is not None)))
    candidates = [_regression(drawn, fit_on, c, seed) for seed in seeds for c in CS]
    found: list[list[tuple[Picture, Floats]]] = [[] for _ in candidates]
    for i in held_out[:CHOSEN_ON]:
        maps = maps_of(encoder, read_image(pictures[i], s.mpp)).probabilities(candidates)
        for pairs, map_ in zip(found, maps, strict=True):
            pairs.append((pictures[i], map_))
    decoders = []
    for seed in seeds:
        own = found[seed * len(CS) : (seed + 1) * len(CS)]
        options = [
            (c, t, pairs) for c, pairs in zip(CS, own, strict=True) for t in THRESHOLDS.tolist()
        ]
        values = [mean_score(s, [_score(s, p, m, t) for p, m in pairs]) for _, t, pairs in options]
        c, threshold, _ = options[int(np.argmax(values))]
        decoders.append(
            dataclasses.replace(_regression(drawn, train, c, seed), threshold=threshold)
        )
    return decoders


def _regression(
    drawn: Sequence[Sequence[_Drawn] | None], used: Sequence[int], c: float, seed: int
) -> Decoder:
    parts = [part[seed] for i in used if (part := drawn[i]) is not None]
    x, y = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    model = LogisticRegression(C=c, max_iter=200).fit((x - mean) / scale, y)
    weights = (model.coef_[0] / scale).astype(np.float32)
    return Decoder(weights, float(model.intercept_[0] - weights @ mean))


def _draw(
    encoder: Encoder, s: DenseSet, pictures: Sequence[Picture], seeds: Sequence[int]
) -> list[list[_Drawn] | None]:
    """Features and labels of positions drawn uniformly from each training image, by seed."""
    drawn: list[list[_Drawn] | None] = []
    for i, picture in enumerate(pictures):
        if picture.split != "train":
            drawn.append(None)
            continue
        maps = maps_of(encoder, read_image(picture, s.mpp))
        truth = grid_truth(s, picture, maps.shape)
        rngs = [np.random.default_rng((seed, i)) for seed in seeds]
        count = min(POSITIONS, truth.size)
        places = [rng.choice(truth.size, count, replace=False) for rng in rngs]
        drawn.append([(maps.at(place), truth.ravel()[place]) for place in places])
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
    mask = _labels(picture) > 0
    resized = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (shape[1], shape[0]), Image.Resampling.BOX
    )
    return np.asarray(resized) >= 128


def centres_of(s: DenseSet, picture: Picture) -> NDArray[np.float64]:
    """Cell centres [N, 2], y and x in px at the scale of the set."""
    points, _ = read_points(picture.file)
    return points[:, ::-1] * picture.mpp / s.mpp


def _score(s: DenseSet, picture: Picture, found: Floats, threshold: float) -> Score:
    if not s.points:
        truth, mask = grid_truth(s, picture, found.shape), found > threshold
        return Score(
            picture.file.name,
            picture.group,
            int((truth & mask).sum()),
            int(mask.sum()),
            int(truth.sum()),
        )
    cells, centres = peaks(found, threshold, s.mpp), centres_of(s, picture)
    pairs = match_points(centres, cells, MATCH_UM / s.mpp)
    return Score(picture.file.name, picture.group, len(pairs), len(cells), len(centres))


def peaks(found: Floats, threshold: float, mpp: float) -> NDArray[np.float64]:
    """Cells: local maxima of a probability map.

    Args:
        found: Probabilities on the grid [h, w].
        threshold: Lower maxima are no cells.
        mpp: Scale of the set, um/px.

    Returns:
        y and x in px at the scale of the set [N, 2]; no two are nearer than CENTRE_UM.
    """
    smooth = ndimage.gaussian_filter(_finer(found), 1.0)
    size = 2 * round(CENTRE_UM / mpp / _FINE) + 1
    top = (smooth == ndimage.maximum_filter(smooth, size)) & (smooth > threshold)
    plateaus, count = ndimage.label(top, np.ones((3, 3)))  # equal neighbours are one cell
    centres = np.array(ndimage.center_of_mass(top, plateaus, range(1, count + 1))).reshape(-1, 2)
    return (centres + 0.5) * _FINE


def _finer(found: Floats) -> Floats:
    """A map on the grid, enlarged to one value for _FINE px."""
    height, width = (n * GRID // _FINE for n in found.shape)
    enlarged = Image.fromarray(found).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(enlarged, dtype=np.float32)


@functools.lru_cache(maxsize=256)
def _labels(picture: Picture) -> NDArray[np.integer]:
    return open_labels(picture.file)


def _size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

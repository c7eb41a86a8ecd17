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
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from torch.nn.functional import interpolate

from pathencoder.encoder import Encoder
from pathencoder.images import open_image
from pathencoder.metrics import match_points
from training.evaluation.annotations import Picture, open_labels, read_pictures, read_points

Floats = NDArray[np.float32]
# features [N, C] and labels [N] of positions of one image
_Drawn = tuple[Floats, NDArray[np.bool_]]
GRID = 4  # px between two positions, at the scale of the set
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
    encoder: Encoder, s: DenseSet, pictures: Sequence[Picture], *, choose: bool, seed: int = 0
) -> list[Score]:
    """Fit the decoder and evaluate it.

    Args:
        encoder: The frozen encoder.
        s: The set.
        pictures: Its images.
        choose: By folds over groups of the train part, instead of on the test part after a fit on
            the whole train part.
        seed: Of the positions that the decoder is fitted on.

    Returns:
        Counts of every evaluated image, in the order of `pictures`.
    """
    drawn = [
        _draw(encoder, s, p, np.random.default_rng((seed, i))) if p.split == "train" else None
        for i, p in enumerate(pictures)
    ]
    scores: dict[int, Score] = {}
    for train, held_out in _folds(pictures, choose=choose):
        decoder = _fit(encoder, s, pictures, drawn, train)
        for i in held_out:
            maps = _maps_of(encoder, s, pictures[i])
            scores[i] = _score(s, pictures[i], decoder.map(maps), decoder.threshold)
    return [scores[i] for i in sorted(scores)]


def mean_score(s: DenseSet, scores: Sequence[Score]) -> float:
    """Mean Dice over images; of point sets F1 of the counts pooled over the images."""
    if not s.points:
        return float(np.mean([x.dice for x in scores]))
    total = sum(x.predicted + x.true for x in scores)
    return 2 * sum(x.hit for x in scores) / total if total else 1.0


@dataclass(frozen=True)
class _Decoder:
    """A 1 x 1 convolution and a threshold.

    Attributes:
        weights: float32 [C]; they include the standardisation.
        bias: Of the convolution.
        threshold: Of the probability.
    """

    weights: Floats
    bias: float
    threshold: float = 0.5

    def map(self, maps: Floats) -> Floats:
        """Probabilities [h, w] of feature maps [C, h, w]."""
        logits = np.tensordot(self.weights, maps, axes=1) + np.float32(self.bias)
        found: Floats = 1 / (1 + np.exp(-logits))
        return found


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
    drawn: Sequence[_Drawn | None],
    train: list[int],
) -> _Decoder:
    """C and threshold by the first of five folds of the training images; a fit on all of them."""
    groups = [pictures[i].group for i in train]
    inner = next(GroupKFold(min(FOLDS, len(set(groups)))).split(groups, groups=groups))
    fit_on, held_out = ([train[j] for j in part] for part in inner)
    candidates = [_regression(drawn, fit_on, c) for c in CS]
    found: list[list[tuple[Picture, Floats]]] = [[] for _ in CS]
    for i in held_out[:CHOSEN_ON]:
        maps = _maps_of(encoder, s, pictures[i])
        for decoder, pairs in zip(candidates, found, strict=True):
            pairs.append((pictures[i], decoder.map(maps)))
    options = [
        (c, t, pairs) for c, pairs in zip(CS, found, strict=True) for t in THRESHOLDS.tolist()
    ]
    values = [mean_score(s, [_score(s, p, m, t) for p, m in pairs]) for _, t, pairs in options]
    c, threshold, _ = options[int(np.argmax(values))]
    return dataclasses.replace(_regression(drawn, train, c), threshold=threshold)


def _regression(drawn: Sequence[_Drawn | None], used: Sequence[int], c: float) -> _Decoder:
    parts = [part for i in used if (part := drawn[i]) is not None]
    x, y = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    model = LogisticRegression(C=c, max_iter=200).fit((x - mean) / scale, y)
    weights = (model.coef_[0] / scale).astype(np.float32)
    return _Decoder(weights, float(model.intercept_[0] - weights @ mean))


def _maps_of(encoder: Encoder, s: DenseSet, picture: Picture) -> Floats:
    return feature_maps(encoder, read_image(picture, s.mpp))


def _draw(encoder: Encoder, s: DenseSet, picture: Picture, rng: np.random.Generator) -> _Drawn:
    """Features [POSITIONS, C] and labels of positions drawn uniformly from one image."""
    maps = _maps_of(encoder, s, picture)
    truth = grid_truth(s, picture, maps.shape[1:])
    at = rng.choice(truth.size, min(POSITIONS, truth.size), replace=False)
    return np.ascontiguousarray(maps.reshape(len(maps), -1).T[at]), truth.ravel()[at]


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


def feature_maps(encoder: Encoder, image: NDArray[np.uint8]) -> Floats:
    """All maps of the encoder's pyramid on one grid of 4 px.

    Args:
        encoder: It sees windows of its input size.
        image: uint8 [H, W, 3].

    Returns:
        float32 [C, ceil(H / 4), ceil(W / 4)].
    """
    side = encoder.spec.input_size
    height, width = image.shape[:2]
    padded = np.pad(
        image,
        ((0, -height % side), (0, -width % side), (0, 0)),
        mode="symmetric" if min(height, width) >= side else "wrap",
    )
    rows, columns = padded.shape[0] // side, padded.shape[1] // side
    windows = padded.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    parts = [_window_maps(encoder, windows[i : i + 8]) for i in range(0, len(windows), 8)]
    cells = side // GRID
    joined = np.concatenate(parts).reshape(rows, columns, -1, cells, cells)
    whole = joined.transpose(2, 0, 3, 1, 4).reshape(joined.shape[2], rows * cells, columns * cells)
    return whole[:, : -(-height // GRID), : -(-width // GRID)]


def _window_maps(encoder: Encoder, windows: NDArray[np.uint8]) -> Floats:
    cells = encoder.spec.input_size // GRID
    with torch.inference_mode():
        x = encoder.transform.normalise(np.ascontiguousarray(windows)).to(
            encoder.device, encoder.dtype
        )
        maps, _ = encoder.pyramid(x)
        same = [
            interpolate(m.float(), size=(cells, cells), mode="bilinear", align_corners=False)
            for m in maps
        ]
    joined: Floats = torch.cat(same, 1).cpu().numpy()
    return joined


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

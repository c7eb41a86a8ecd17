"""Label-free nuclei on labelled sets: score maps, networks, and the figures of every image.

All score maps have the same post-processing, so that differences are those of the maps.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder import metrics, stain
from pathencoder.errors import ConfigError
from pathencoder.images import list_images, open_image
from pathencoder.matching import match_points
from pathencoder.nuclei import instances, weights
from pathencoder.nuclei.adapt import train
from pathencoder.nuclei.adapt.pseudo_labels import Rule
from pathencoder.nuclei.adapt.train import Recipe
from pathencoder.nuclei.adapt.variations import Variation
from pathencoder.nuclei.measure import measure
from pathencoder.nuclei.network import ConfidenceNetwork, NucleiNetwork
from pathencoder.nuclei.prepare import Prepared, prepare
from pathencoder.nuclei.scores import mean_stain, nucleus_scores, predict
from pathencoder.nuclei.segment import label_scores
from pathencoder.tables import read_table
from training.data.tar import why_no_tile
from training.evaluation.annotations import open_labels, read_points, scale_of
from training.evaluation.nuclei_paper import confidence, train_paper
from training.files import write_text
from training.methods.parts.patch_contrast import choose_channel

log = logging.getLogger("training")
Scores = NDArray[np.float32]
# an image to its score map at the working scale, above 0: nucleus
Score = Callable[[Prepared], Scores]
# Figures of one image. Of instance maps: Dice, AJI, PQ, F1. Of points: matched, predicted and true
# points, and of the matched ones how many are positive by the labels and by the prediction.
Row = list[float]


@dataclass(frozen=True)
class NucleiSet:
    """One labelled set.

    Attributes:
        name: Its name in tables.
        folder: Its images, below the folder of the sets.
        radius: Largest distance of a match in px, for points; None: the labels are instance maps.
        without: Images whose names contain this are left out.
        stained: Its points are of class "positive" (DAB) or "negative".
        stain: What its images are stained with: known, so not guessed.
    """

    name: str
    folder: str
    radius: float | None = None
    without: str = "\0"
    stained: bool = False
    stain: str = "he"


SETS = (
    NucleiSet("monuseg_test", "monuseg/test"),
    NucleiSet("monuseg_train", "monuseg/train"),
    NucleiSet("cpm15", "cpm15/all"),
    NucleiSet("lgg36", "lgg36/all", without="TCGA-FG-A4MU"),
    NucleiSet("dsb2018_histology", "dsb2018_histology/all"),
    NucleiSet("deepliif", "deepliif_sample/test", stain="ihc"),
    NucleiSet("crchisto", "crchisto/test", radius=6),
    NucleiSet("consep20x_points", "consep20x_points/test", radius=6),
    NucleiSet("bcdata", "bcdata_sample/test", radius=12, stained=True, stain="ihc"),
)
TRAINED_ON = SETS[1]
ARMS = {
    "ours": Recipe(),
    "no_hollow": Recipe(variation=Variation(hollow=0.0)),
    "no_fade": Recipe(variation=Variation(fade=0.0)),
    "no_paste": Recipe(variation=Variation(paste=0)),
    "no_shift": Recipe(variation=Variation(shift=0.0)),
    "no_variation": Recipe(variation=Variation(fade=0.0, hollow=0.0, paste=0, shift=0.0)),
    "no_filter": Recipe(rule=Rule(largest=10**9, solidity=0.0, aspect=1e9, contrast=-1e9)),
    "one_round": Recipe(rounds=(500,)),
    "not_averaged": Recipe(averaged=0.0),
    "with_contrast": Recipe(contrast=0.1),
    "contrast_only": Recipe(anchor=0.0, contrast=1.0),
}
ALONE = "network_alone"  # "ours" without the stain map
BUNDLED = "bundled"  # the network of the package, which was trained as "ours"
PAPER = ("paper", "paper_oracle")


def rows_of(name: str, chosen: NucleiSet, data: Path, cache: Path, seeds: int) -> list[list[Row]]:
    """The figures of one row of the table on one set.

    Args:
        name: One of `PLAIN`, `PAPER`, `ALONE`, `BUNDLED` and `ARMS`.
        chosen: The set.
        data: Folder of the sets.
        cache: Folder of trained networks.
        seeds: How many networks are trained.

    Returns:
        [seeds][images]; one seed for a row that is not trained.
    """
    if name in PLAIN:
        return [evaluate(chosen, data, PLAIN[name])]
    log.info("%s on %s", name, chosen.name)
    if name in PAPER:
        oracle = name == "paper_oracle"
        return [_paper_rows(chosen, data, cache, seed, oracle=oracle) for seed in range(seeds)]
    if name == BUNDLED:
        return [evaluate(chosen, data, functools.partial(_network_and_stain, bundled()))]
    score, arm = (_network_alone, "ours") if name == ALONE else (_network_and_stain, name)
    networks = [trained(arm, seed, data, cache) for seed in range(seeds)]
    return [evaluate(chosen, data, functools.partial(score, network)) for network in networks]


def evaluate(chosen: NucleiSet, data: Path, score: Score) -> list[Row]:
    """Figures of every image of a set under one score map and the common post-processing."""
    return [
        _figures(chosen, file, prepared, label_scores(prepared, score(prepared)))
        for file, prepared in pictures(chosen, data)
    ]


def pictures(chosen: NucleiSet, data: Path) -> Iterator[tuple[Path, Prepared]]:
    """The images of a set at the scale that its meta.csv gives.

    Args:
        chosen: The set.
        data: Folder of the sets.

    Yields:
        File and prepared image, in the order of names; 0.25 um/px where the table gives no scale.

    Raises:
        ConfigError: An image is not in meta.csv, or the table cannot be read.
        ImageError: The folder is missing, or an image cannot be decoded.
    """
    root = data / Path(chosen.folder).parts[0]
    table = read_table(root / "meta.csv", ("file", "mpp"), last_is_text=True)
    scales = {row["file"]: scale_of(row["mpp"]) for row in table.rows}
    for file in sorted(list_images(data / chosen.folder)):
        name = file.relative_to(root).as_posix()
        if why_no_tile(name) or chosen.without in file.name:
            continue
        if name not in scales:
            raise ConfigError(f"{table.file} has no row with file {name}: add it, with its mpp")
        yield file, prepare(open_image(file), mpp=scales[name], stain=chosen.stain)


def _figures(chosen: NucleiSet, file: Path, prepared: Prepared, labels: instances.Labels) -> Row:
    if chosen.radius is None:
        return list(dataclasses.astuple(metrics.instance_scores(open_labels(file), labels)))
    points, classes = read_points(file)
    predicted = centroids(labels)
    true, found = match_points(points, predicted, chosen.radius).T
    positive = [0, 0]
    if chosen.stained:
        dab = measure(labels, prepared.image, mpp=prepared.mpp, stain="ihc").positive
        by_label = sum(classes[i] == "positive" for i in true)
        positive = [by_label, 0 if dab is None else int(dab[found].sum())]
    return [len(true), len(predicted), len(points), *positive]


def centroids(labels: instances.Labels) -> NDArray[np.float64]:
    """Centres x and y of every object [n, 2], in pixel indices."""
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns]
    area = np.maximum(np.bincount(which)[1:], 1)
    return np.stack([np.bincount(which, at)[1:] / area for at in (columns, rows)], 1)


def otsu_score(prepared: Prepared) -> Scores:
    """Hematoxylin (published vectors) above its Otsu threshold, smoothed as the mean stain map."""
    return mean_stain(_maps(prepared)[:1])


def stain_score(prepared: Prepared) -> Scores:
    """The mean of the three stain maps."""
    return mean_stain(_maps(prepared))


PLAIN: dict[str, Score] = {"otsu": otsu_score, "stain": stain_score}


def _network_alone(network: NucleiNetwork, prepared: Prepared) -> Scores:
    logits: Scores = predict(network, _maps(prepared))[0]
    return logits


def _network_and_stain(network: NucleiNetwork, prepared: Prepared) -> Scores:
    return nucleus_scores(network, _maps(prepared))


def _maps(prepared: Prepared) -> Scores:
    if prepared.calibration is None:
        return np.full((3, *prepared.working.shape[:2]), -1, np.float32)
    return prepared.calibration.maps(prepared.working)


def trained(arm: str, seed: int, data: Path, cache: Path) -> NucleiNetwork:
    """The network of one arm and seed, trained on the images of monuseg/train.

    Args:
        arm: One of `ARMS`.
        seed: Of the training.
        data: Folder of the sets.
        cache: Where the network is kept and, if it is there already, read from.

    Returns:
        The network.
    """
    folder = cache / f"{arm}-{seed}"
    if not (folder / "config.json").exists():
        log.info("training %s, seed %d", arm, seed)
        images = [_maps(prepared) for _, prepared in pictures(TRAINED_ON, data)]
        weights.save_network(
            folder,
            train.train(images, ARMS[arm], seed=seed),
            {"recipe": dataclasses.asdict(ARMS[arm]), "seed": seed},
        )
    return weights.load_network(folder)


def bundled() -> NucleiNetwork:
    """The network of the package."""
    return weights.load_network()


def _paper_rows(
    chosen: NucleiSet, data: Path, cache: Path, seed: int, *, oracle: bool
) -> list[Row]:
    """The paper's network; its channel and polarity chosen by the stain of ten training images.

    The oracle chooses them by the set's own labels: by the raw mask's Dice where there are masks,
    else by the F1 of points. The chosen map has the common post-processing.
    """
    images = [prepared.image for _, prepared in pictures(TRAINED_ON, data)]
    network = train_paper(images, cache / f"paper-{seed}.pt", seed=seed)
    seen = [
        (file, prepared, confidence(network, prepared) - np.float32(0.5))
        for file, prepared in pictures(chosen, data)
    ]

    def rows(channel: int, sign: int) -> list[Row]:
        return [
            _figures(chosen, file, prepared, label_scores(prepared, sign * maps[channel]))
            for file, prepared, maps in seen
        ]

    if not oracle:
        return rows(*chosen_channel(network, data, cache / f"paper-{seed}.json"))
    ways = [(c, sign) for c in range(network.head.out_channels) for sign in (1, -1)]
    if chosen.radius is not None:
        return max((rows(*way) for way in ways), key=lambda found: summary(chosen, found)[0])
    truths = [_coarse(open_labels(file), maps.shape[1:]) for file, _, maps in seen]

    def raw_dice(way: tuple[int, int]) -> float:
        channel, sign = way
        pairs = zip(truths, (maps for _, _, maps in seen), strict=True)
        return float(np.mean([metrics.dice(t, sign * maps[channel] > 0) for t, maps in pairs]))

    return rows(*max(ways, key=raw_dice))


def _coarse(labels: NDArray[np.integer], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The foreground of an instance map at the nearest pixels of a coarser grid."""
    sides = zip(shape, labels.shape, strict=True)
    at = np.ix_(*(((np.arange(n) + 0.5) * whole / n).astype(int) for n, whole in sides))
    foreground: NDArray[np.bool_] = labels[at] > 0
    return foreground


def chosen_channel(network: ConfidenceNetwork, data: Path, kept: Path) -> tuple[int, int]:
    """The channel that correlates most with hematoxylin in ten training images, without labels.

    Args:
        network: The paper's network.
        data: Folder of the sets.
        kept: The file in which the choice is kept.

    Returns:
        The channel, and its polarity: 1 or -1.
    """
    if not kept.exists():
        some = [prepared for _, prepared in pictures(TRAINED_ON, data)][:10]
        side = min(min(p.working.shape[:2]) for p in some)
        maps = np.stack([confidence(network, p)[:, :side, :side] for p in some])
        channel, turned = choose_channel(
            maps, np.stack([_hematoxylin(p)[:side, :side] for p in some])
        )
        write_text(kept, json.dumps([channel, -1 if turned else 1]))
    channel, sign = json.loads(kept.read_text(encoding="utf-8"))
    return channel, sign


def _hematoxylin(prepared: Prepared) -> Scores:
    density: Scores = stain.separate(prepared.working)[..., 0]
    return density


def summary(chosen: NucleiSet, rows: list[Row]) -> list[float]:
    """The figures of a set.

    Args:
        chosen: The set.
        rows: Figures of its images.

    Returns:
        Of instance maps the means over images of Dice, AJI, PQ and F1. Of points F1, precision and
        recall of the pooled counts and, where stained, `positive_error`.
    """
    if chosen.radius is None:
        return [float(value) for value in np.mean(rows, 0)]
    found = metrics.DetectionScores.of(*(int(v) for v in np.sum(rows, 0)[:3]))
    errors = [positive_error(rows)] if chosen.stained else []
    return [found.f1, found.precision, found.recall, *errors]


def positive_error(rows: list[Row]) -> float:
    """Mean over images of the error of the positive fraction among matched cells, absolute."""
    errors = [
        abs(by_label - by_prediction) / matched
        for matched, _, _, by_label, by_prediction in rows
        if matched
    ]
    return float(np.mean(errors))

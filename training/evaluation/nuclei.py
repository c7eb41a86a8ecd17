"""python -m training.evaluate nuclei.

label-free nuclei against thresholds and the paper's method, on every labelled set, over seeds.

Rows: `otsu` (hematoxylin above its Otsu threshold), `stain` (mean of the three stain maps above 0:
our network's first teacher), `paper`
and `paper_oracle` (Boserup and Selvan's method, its channel chosen by the stain or by the labels),
`ours`, `network_alone`, and ours with a part left out. All share one post-processing, so that
differences are the score map's. Trained networks are kept in --cache and used again.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from pathencoder import metrics, stain
from pathencoder.images import open_image
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
from training.evaluation.nuclei_paper import confidence, train_paper
from training.methods.parts.patch_contrast import choose_channel

log = logging.getLogger("training")
Scores = NDArray[np.float32]
# an image to its score map at the working scale, above 0: nucleus
Score = Callable[[Prepared], Scores]


@dataclass(frozen=True)
class NucleiSet:
    """One labelled set. radius: of a match in px, for points.

    None: instance maps. without: files whose name holds this are left out.

    stained: its points are of class "positive" (DAB) or "negative". stain: what its images are
    stained with: known, so not guessed.
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
PLAIN = ("otsu", "stain")
ALONE = "network_alone"  # ours without the stain map beside it
PAPER = ("paper", "paper_oracle")
ROWS = ", ".join((*PLAIN, *PAPER, ALONE, *ARMS))
# dice, aji, pq, f1 of an image; or, for points: matched, predicted, true, positive by truth and by
# us of the matched
Row = list[float]


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("../shared/data/nuclei"),
    show_default=True,
    help="Folder of the sets.",
)
@click.option(
    "--rows", default="otsu,stain,paper,paper_oracle,ours", show_default=True, help=f"Of {ROWS}."
)
@click.option(
    "--sets", "chosen", default=",".join(s.name for s in SETS), help="Comma-separated sets."
)
@click.option("--seeds", default=5, show_default=True)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path("runs/nuclei"),
    show_default=True,
    help="Trained networks.",
)
@click.option(
    "--json",
    "out",
    type=click.Path(path_type=Path),
    help="Write every image's figures here as well.",
)
def nuclei(data: Path, rows: str, chosen: str, seeds: int, cache: Path, out: Path | None) -> None:
    """Compare label-free nuclei.

    Learned rows are trained on the images of monuseg/train, never on a label.
    """
    names, sets = rows.split(","), [s for s in SETS if s.name in chosen.split(",")]
    results = {s.name: {name: _row(name, s, data, cache, seeds) for name in names} for s in sets}
    for each in sets:
        click.echo("\n".join(table(each, results[each.name])))
    if out:
        out.write_text(json.dumps(results) + "\n")


def _row(name: str, chosen: NucleiSet, data: Path, cache: Path, seeds: int) -> list[list[Row]]:
    """[seeds][images] of one row on one set; a row that learns nothing has one seed."""
    if name in PAPER:
        return [
            _paper_row(chosen, data, cache, seed, oracle=name == "paper_oracle")
            for seed in range(seeds)
        ]
    if name in PLAIN:
        return [evaluate(chosen, data, {"otsu": otsu_score, "stain": stain_score}[name])]
    networks = [
        trained("ours" if name == ALONE else name, seed, data, cache) for seed in range(seeds)
    ]
    log.info("%s on %s", name, chosen.name)
    if name == ALONE:
        return [evaluate(chosen, data, lambda p, n=n: predict(n, _maps(p))[0]) for n in networks]
    return [evaluate(chosen, data, lambda p, n=n: nucleus_scores(n, _maps(p))) for n in networks]


def evaluate(chosen: NucleiSet, data: Path, score: Score) -> list[Row]:
    """Figures of every image of a set under one score map and the common post-processing."""
    return [
        _figures(chosen, file, prepared, label_scores(prepared, score(prepared)))
        for file, prepared in pictures(chosen, data)
    ]


def pictures(chosen: NucleiSet, data: Path) -> Iterator[tuple[Path, Prepared]]:
    """The images of a set, prepared at the scale that its meta.csv gives (0.25 is assumed where it gives none)."""
    root = data / Path(chosen.folder).parts[0]
    with (root / "meta.csv").open() as file:
        scale = {row["file"]: _number(row["mpp"]) for row in csv.DictReader(file)}
    kept = (
        f for f in sorted((data / chosen.folder).glob("*.webp")) if chosen.without not in f.name
    )
    for file in kept:
        yield (
            file,
            prepare(
                open_image(file), mpp=scale[file.relative_to(root).as_posix()], stain=chosen.stain
            ),
        )


def _number(text: str) -> float | None:
    words = text.replace("~", "").split()
    try:
        return float(words[0])
    except (ValueError, IndexError):
        return None


def _figures(chosen: NucleiSet, file: Path, prepared: Prepared, labels: instances.Labels) -> Row:
    if chosen.radius is None:
        truth = open_labels(file.with_suffix(".labels.png"))
        return list(dataclasses.astuple(metrics.instance_scores(truth, labels)))
    with file.with_suffix(".points.csv").open() as points:
        rows = list(csv.DictReader(points))
    at, predicted = [[float(r["x"]), float(r["y"])] for r in rows], centroids(labels)
    true, found = metrics.match_points(at, predicted, chosen.radius).T
    positive = [0, 0]
    if chosen.stained:
        dab = measure(labels, prepared.image, mpp=prepared.mpp, stain="ihc").positive
        positive = [sum(rows[i]["class"] == "positive" for i in true), int(dab[found].sum())]
    return [len(true), len(predicted), len(rows), *positive]


def open_labels(path: Path) -> NDArray[np.int64]:
    """An instance map as stored."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


def centroids(labels: instances.Labels) -> NDArray[np.float64]:
    """x, y of every object [n, 2], pixel indices."""
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns]
    area = np.maximum(np.bincount(which)[1:], 1)
    return np.stack([np.bincount(which, at)[1:] / area for at in (columns, rows)], 1)


def otsu_score(prepared: Prepared) -> Scores:
    """Hematoxylin (published vectors) over its Otsu threshold, smoothed as the mean stain map is."""
    return mean_stain(_maps(prepared)[:1])


def stain_score(prepared: Prepared) -> Scores:
    """The mean of the three stain maps."""
    return mean_stain(_maps(prepared))


def _maps(prepared: Prepared) -> NDArray[np.float32]:
    if prepared.calibration is None:
        return np.full((3, *prepared.working.shape[:2]), -1, np.float32)
    return prepared.calibration.maps(prepared.working)


def trained(arm: str, seed: int, data: Path, cache: Path) -> NucleiNetwork:
    """The network of one arm and seed, from the cache or trained now on the images of monuseg/train."""
    folder = cache / f"{arm}-{seed}"
    if not (folder / "config.json").exists():
        log.info("training %s, seed %d", arm, seed)
        images = [_maps(p) for _, p in pictures(SETS[1], data)]
        weights.save_network(
            folder,
            train.train(images, ARMS[arm], seed=seed),
            {"recipe": dataclasses.asdict(ARMS[arm]), "seed": seed},
        )
    return weights.load_network(folder)


def _paper_row(chosen: NucleiSet, data: Path, cache: Path, seed: int, *, oracle: bool) -> list[Row]:
    """The paper's network, its channel and polarity chosen by the stain on ten training images, or by this set's own labels (Dice, F1).

    The oracle chooses by the raw mask's Dice where there are masks, and scores the chosen one with the common post-processing.
    """
    network = train_paper(
        [p.image for _, p in pictures(SETS[1], data)], cache / f"paper-{seed}.pt", seed=seed
    )
    seen = [
        (file, prepared, confidence(network, prepared) - np.float32(0.5))
        for file, prepared in pictures(chosen, data)
    ]

    def rows(way: tuple[int, int]) -> list[Row]:
        return [
            _figures(chosen, file, prepared, label_scores(prepared, way[1] * maps[way[0]]))
            for file, prepared, maps in seen
        ]

    if not oracle:
        return rows(_chosen_channel(network, data, cache / f"paper-{seed}.json"))
    ways = [(c, sign) for c in range(network.head.out_channels) for sign in (1, -1)]
    if chosen.radius is not None:
        return max((rows(way) for way in ways), key=lambda found: summary(chosen, found)[0])
    truths = [
        _coarse(open_labels(file.with_suffix(".labels.png")), maps.shape[1:])
        for file, _, maps in seen
    ]
    return rows(
        max(
            ways,
            key=lambda w: np.mean(
                [
                    metrics.dice(t, w[1] * m[w[0]] > 0)
                    for t, (_, _, m) in zip(truths, seen, strict=True)
                ]
            ),
        )
    )


def _coarse(labels: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The foreground of an instance map at the nearest pixels of a coarser grid."""
    at = np.ix_(
        *(
            ((np.arange(n) + 0.5) * whole / n).astype(int)
            for n, whole in zip(shape, labels.shape, strict=True)
        )
    )
    return labels[at] > 0


def _chosen_channel(network: ConfidenceNetwork, data: Path, kept: Path) -> tuple[int, int]:
    """The nuclear channel by its correlation with hematoxylin, and 1 or -1 for its polarity.

    Kept in a file.
    """
    if not kept.exists():
        some = [p for _, p in pictures(SETS[1], data)][:10]
        side = min(min(p.working.shape[:2]) for p in some)
        maps = np.stack([confidence(network, p)[:, :side, :side] for p in some])
        channel, turned = choose_channel(
            maps, np.stack([_hematoxylin(p)[:side, :side] for p in some])
        )
        kept.write_text(json.dumps([channel, -1 if turned else 1]))
    channel, sign = json.loads(kept.read_text())
    return channel, sign


def _hematoxylin(prepared: Prepared) -> NDArray[np.float32]:
    density: NDArray[np.float32] = stain.separate(prepared.working)[..., 0]
    return density


def summary(chosen: NucleiSet, rows: list[Row]) -> list[float]:
    """Means over images (dice, aji, pq, f1).

    Or of pooled points f1, precision, recall and, where stained, `positive_error`.
    """
    if chosen.radius is None:
        return np.mean(rows, 0).tolist()
    found = metrics.DetectionScores.of(*(int(v) for v in np.sum(rows, 0)[:3]))
    return [
        found.f1,
        found.precision,
        found.recall,
        *([positive_error(rows)] if chosen.stained else []),
    ]


def positive_error(rows: list[Row]) -> float:
    """Mean over images of the absolute difference of the positive fraction among matched cells, by truth and by us."""
    return float(
        np.mean(
            [abs(by_truth - by_us) / matched for matched, _, _, by_truth, by_us in rows if matched]
        )
    )


def table(chosen: NucleiSet, results: dict[str, list[list[Row]]]) -> list[str]:
    """Markdown: mean and sd over seeds.

    AJI's interval over images, and the difference to `stain` with its interval, where that row is.
    """
    columns = (
        ("Dice", "AJI", "PQ", "F1")
        if chosen.radius is None
        else ("F1", "precision", "recall", "positive error")[: 3 + chosen.stained]
    )
    lines = [f"\n### {chosen.name} ({len(next(iter(results.values()))[0])} images)"]
    lines.append(f"| row | {' | '.join(columns)} | AJI, 95 % over images | less `stain` |")
    lines.append("|---" * (len(columns) + 3) + "|")
    for name, seeds in results.items():
        figures = np.array([summary(chosen, rows) for rows in seeds])
        cells = [
            f"{m:.4f} ± {s:.4f}"
            for m, s in zip(
                figures.mean(0), figures.std(0, ddof=min(1, len(seeds) - 1)), strict=True
            )
        ]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {_interval(chosen, seeds)} |"
            f" {_difference(chosen, seeds, results.get('stain'))} |"
        )
    return lines


def _interval(chosen: NucleiSet, seeds: list[list[Row]]) -> str:
    """The interval of AJI over images, each the mean of its seeds."""
    if chosen.radius is not None:
        return ""
    found = metrics.paired_difference(np.mean(seeds, 0)[:, 1], np.zeros(len(seeds[0])))
    return f"{found.low:.4f} to {found.high:.4f}"


def _difference(chosen: NucleiSet, seeds: list[list[Row]], base: list[list[Row]] | None) -> str:
    if base is None or chosen.radius is not None or seeds is base:
        return ""
    mean, floor = np.mean(seeds, 0), np.array(base[0])
    found = [metrics.paired_difference(mean[:, k], floor[:, k]) for k in (0, 1)]
    return "; ".join(
        f"{n} {d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})"
        for n, d in zip(("Dice", "AJI"), found, strict=True)
    )


if __name__ == "__main__":
    nuclei()

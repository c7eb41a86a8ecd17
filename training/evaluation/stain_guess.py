"""Fit the guess of an image's stain, and report how often it is right.

python -m training.evaluation.stain_guess [--data FOLDER] [--report]

The guess (pathencoder/stain.py) is a logistic regression on the shares of colours. It is fitted on
the tiles of pretrain/manifest.csv with use=1, by their stain_class: he, ihc, and neither (special
stains, cytology, chromogens that are not brown). For the tables, whole sources are held out. The
sets of tiles/ and the images of slides/ are evaluated only.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from pathencoder import stain
from pathencoder.errors import PathEncoderError
from pathencoder.images import open_image
from pathencoder.slides.reader import open_slide
from pathencoder.tables import read_table
from training.data.corpus import open_corpus

CLASSES = ("he", "ihc", "neither")
NOT_BROWN = ("IHC CK7 + p40", "HER2 CISH", "IHC CD34")  # pink, black and red chromogens
PRIORS = (0.6, 0.2, 0.2)  # of the classes, as they may occur among a user's images
FOLDS = 10
SLIDES = {  # of slides/: images and small slides with a known stain
    "he": (
        "aperio/*.svs",
        "generic/CMU-1*.tiff",
        "generic/TCGA*.tiff",
        "thumbnails/five_scanners_SCC/*.png",
        "thumbnails/he_*.webp",
        "thumbnails/*_HE_BIRL.jpg",
        "thumbnails/lunglesion3_stains/He.jpg",
        "thumbnails/pen_*",
        "thumbnails/tile_pen_*",
    ),
    "ihc": (
        "generic/OS-2*.tiff",
        "generic/kidney_IHC*.tif",
        "thumbnails/ki67*",
        "thumbnails/ratkidney_PanCK*.jpg",
        "thumbnails/lunglesion3_stains/[CKp]*.jpg",
    ),
    "neither": ("thumbnails/pale_hematoxylin_valis.webp",),
}
Row = dict[str, str]


def tiles_of(folder: Path) -> Iterator[tuple[Row, NDArray[np.uint8]]]:
    """The tiles that may be trained on, without those of mixed stains.

    Args:
        folder: A corpus with a manifest.csv.

    Yields:
        A tile's row of the manifest, and its pixels.

    Raises:
        ConfigError: The manifest is missing or not valid.
        ImageError: A tile cannot be decoded.
    """
    table = read_table(folder / "manifest.csv", ("shard", "key", "src", "stain", "stain_class"))
    corpus = open_corpus(folder)
    rows = {row["key"]: row for row in table.rows}
    rows |= {f"{row['shard']}/{row['key']}": row for row in table.rows}
    for index, key in enumerate(corpus.keys):
        if rows[key]["stain_class"] != "mixed":
            yield rows[key], corpus.read(index)


def class_of(row: Row) -> int:
    """The index in `CLASSES` of a manifest's row."""
    brown = not row["stain"].startswith(NOT_BROWN) or "(DAB)" in row["stain"]
    return {"he": 0, "ihc": 1 if brown else 2}.get(row["stain_class"], 2)


def source_of(row: Row) -> str:
    """The group that is held out together: a source, or one stain of a source with many."""
    many = row["src"] in ("pathologyatlas", "kidney_multistain") and row["stain_class"] != "he"
    return f"{row['src']}, {row['stain']}" if many else row["src"]


def weights_of(classes: NDArray[np.int64], sources: list[str]) -> NDArray[np.float64]:
    """Weights of the tiles [N]: sources count by the root of their size, classes by `PRIORS`."""
    sizes = Counter(sources)
    weights = np.array([sizes[s] ** -0.5 for s in sources])
    for k, prior in enumerate(PRIORS):
        weights[classes == k] *= prior / max(weights[classes == k].sum(), 1e-9)
    return weights * len(weights)


def fit(
    shares: NDArray[np.float32], classes: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit the regression.

    Args:
        shares: Shares of colours of the tiles (`stain.colour_shares`) [N, 6].
        classes: Indices into `CLASSES` [N].
        weights: Of the tiles [N].

    Returns:
        The regression's weights [3, 7] and bias [3].
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=3, max_iter=5000)
    model.fit(stain.stain_evidence(shares), classes, sample_weight=weights)
    return model.coef_.astype(np.float32), model.intercept_.astype(np.float32)


def held_out(
    shares: NDArray[np.float32], classes: NDArray[np.int64], sources: list[str]
) -> list[stain.StainGuess]:
    """The guess of every tile by a regression that has not seen its source."""
    names = sorted(set(sources))
    places = np.random.default_rng(0).permutation(len(names)) % FOLDS
    fold = np.array([dict(zip(names, places, strict=True))[s] for s in sources])
    weights = weights_of(classes, sources)
    found: list[stain.StainGuess | None] = [None] * len(sources)
    for k in range(FOLDS):
        seen = fold != k
        model = fit(shares[seen], classes[seen], weights[seen])
        for i in np.flatnonzero(~seen):
            found[i] = stain.guess_of_shares(shares[i], *model)
    return [g for g in found if g is not None]


def verdict(guess: stain.StainGuess, truth: str) -> str:
    """Whether a guess is right, wrong, undecided or blank.

    Args:
        guess: The guess.
        truth: Of `CLASSES`; of "neither", any decided stain is wrong.

    Returns:
        "right", "wrong: STAIN", "undecided" or "blank".
    """
    if guess.stain == "blank" or not guess.decided:
        return "blank" if guess.stain == "blank" else "undecided"
    return "right" if guess.stain == truth else f"wrong: {guess.stain}"


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """A Markdown table of (set, verdict) pairs: counts by set."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome in rows:
        counts[name][outcome] += 1
    columns = sorted({outcome for count in counts.values() for outcome in count})
    lines = [f"| set | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in sorted(counts):
        lines.append(f"| {name} | {' | '.join(str(counts[name][c]) for c in columns)} |")
    return lines


def reliability(
    guesses: list[stain.StainGuess], truths: list[str], weights: NDArray[np.float64]
) -> list[str]:
    """A Markdown table: how often the decided guesses are right, by their confidence."""
    lines = ["| confidence | tiles | right | right, weighted |", "|---|---|---|---|"]
    for low, high in ((0.7, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 0.99), (0.99, 1.01)):
        chosen = [
            i
            for i, g in enumerate(guesses)
            if g.decided and g.stain in ("he", "ihc") and low <= g.confidence < high
        ]
        if chosen:
            right = np.array([guesses[i].stain == truths[i] for i in chosen])
            weighted = np.average(right, weights=weights[chosen])
            lines.append(f"| {low:.2f}- | {len(chosen)} | {right.mean():.3f} | {weighted:.3f} |")
    return lines


def labelled(tiles: Path) -> Iterator[tuple[str, str, Path]]:
    """Set, true stain and file of the labelled tiles."""
    for folder in sorted(p.parent for p in tiles.glob("*/labels.csv")):
        for row in read_table(folder / "labels.csv", ("file",)).rows:
            yield folder.name, "ihc" if "ihc" in folder.name else "he", folder / row["file"]


def slides_of(slides: Path) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """Name, true stain and pixels of the images and small slides of `SLIDES`."""
    for truth, patterns in SLIDES.items():
        for file in sorted(f for pattern in patterns for f in slides.glob(pattern)):
            if file.suffix in (".svs", ".tiff"):
                with contextlib.closing(open_slide(file)) as slide:
                    yield file.name, truth, slide.read(0, 0, 0, *slide.size)
            else:
                yield file.name, truth, open_image(file)


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--report", is_flag=True, help="Also read tiles/ and slides/, for tables.")
def main(data: Path, *, report: bool) -> None:
    """Fit and report."""
    try:
        _fit_and_print(data / "pretrain")
        if report:
            _evaluate(data)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def _fit_and_print(pretrain: Path) -> None:
    """Tables of the guesses with their sources held out, and the weights of a fit on all tiles."""
    rows, shares = [], []
    for row, image in tiles_of(pretrain):
        found = stain.colour_shares(image)
        if found is not None:
            rows.append(row)
            shares.append(found)
    x, classes = np.array(shares), np.array([class_of(r) for r in rows])
    sources, truths = [source_of(r) for r in rows], [CLASSES[c] for c in classes]
    guesses = held_out(x, classes, sources)
    outcomes = [verdict(g, t) for g, t in zip(guesses, truths, strict=True)]
    by_class = [
        f"{t}: {r['stain'] if t != 'he' else r['src']}" for t, r in zip(truths, rows, strict=True)
    ]
    click.echo("\n".join(table(zip(truths, outcomes, strict=True))) + "\n")
    click.echo("\n".join(table(zip(by_class, outcomes, strict=True))) + "\n")
    click.echo("\n".join(reliability(guesses, truths, weights_of(classes, sources))) + "\n")
    weights, bias = fit(x, classes, weights_of(classes, sources))
    for name, values in (("weights", weights), ("bias", bias)):
        click.echo(f"{name} {np.array2string(values, precision=2, separator=', ')}")


def _evaluate(data: Path) -> None:
    """Guesses of the package for slides/ and tiles/."""
    click.echo("| slide | true | guess |\n|---|---|---|")
    for name, truth, image in slides_of(data / "slides"):
        click.echo(f"| {name} | {truth} | {stain.guess_stain(image).text} |")
    click.echo()
    rows = (
        (name, verdict(stain.guess_stain(open_image(file)), truth))
        for name, truth, file in labelled(data / "tiles")
    )
    click.echo("\n".join(table(rows)))


if __name__ == "__main__":
    main()

"""python -m training.evaluation.stain_guess.

Fit the guess of an image's stain, and say how often it is right.

The guess (pathencoder/stain.py) is a logistic regression on the shares of colours. It is fitted on
the tiles of pretrain/manifest.csv with use=1, by their stain_class: he, ihc, and neither (special
stains, cytology, chromogens that are not brown). Sources are held out whole for the table; the
sets of tiles/ and the pictures of slides/ are read for their table alone.
"""

from __future__ import annotations

import contextlib
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from pathencoder import stain
from pathencoder.images import decode_image, open_image
from pathencoder.slides.reader import open_slide
from pathencoder.tables import read_table

CLASSES = ("he", "ihc", "neither")
NOT_BROWN = ("IHC CK7 + p40", "HER2 CISH", "IHC CD34")  # pink, black and red chromogens
PRIORS = (0.6, 0.2, 0.2)  # of the classes, as a user's images may come
FOLDS = 10
SLIDES = {  # of slides/: pictures and small slides with a known stain
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
    """The manifest's rows that may be used (not the mixed ones), and their images."""
    table = read_table(
        folder / "manifest.csv", ("shard", "key", "src", "stain", "stain_class", "use")
    )
    rows = [r for r in table.rows if r["use"] == "1" and r["stain_class"] != "mixed"]
    by_shard: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_shard[row["shard"]][row["key"]] = row
    for shard, wanted in by_shard.items():
        with tarfile.open(folder / shard) as tar:
            for member in tar:
                row = wanted.get(Path(member.name).stem)
                content = tar.extractfile(member)
                if row and content:
                    yield row, decode_image(content.read(), member.name)


def class_of(row: Row) -> int:
    """The index in `CLASSES` of a manifest's row."""
    brown = not row["stain"].startswith(NOT_BROWN) or "(DAB)" in row["stain"]
    return {"he": 0, "ihc": 1 if brown else 2}.get(row["stain_class"], 2)


def source_of(row: Row) -> str:
    """What is held out together: a source; of those that hold many stains, one of them."""
    many = row["src"] in ("pathologyatlas", "kidney_multistain") and row["stain_class"] != "he"
    return f"{row['src']}, {row['stain']}" if many else row["src"]


def weights_of(classes: NDArray[np.int64], sources: list[str]) -> NDArray[np.float64]:
    """A tile's weight: sources count by the root of their size, classes by `PRIORS`."""
    sizes = Counter(sources)
    weights = np.array([sizes[s] ** -0.5 for s in sources])
    for k, prior in enumerate(PRIORS):
        weights[classes == k] *= prior / max(weights[classes == k].sum(), 1e-9)
    return weights * len(weights)


def fit(
    shares: NDArray[np.float32], classes: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The regression's weights [3, 7] and bias [3]."""
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
    """right, wrong or undecided; of neither H&E nor IHC, any decided stain is wrong."""
    if guess.stain == "blank" or not guess.decided:
        return "blank" if guess.stain == "blank" else "undecided"
    return "right" if guess.stain == truth else f"wrong: {guess.stain}"


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Markdown of (set, verdict) pairs: counts by set."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, said in rows:
        counts[name][said] += 1
    columns = sorted({said for _, c in counts.items() for said in c})
    lines = [f"| set | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in sorted(counts):
        lines.append(f"| {name} | {' | '.join(str(counts[name][c]) for c in columns)} |")
    return lines


def reliability(
    guesses: list[stain.StainGuess], truths: list[str], weights: NDArray[np.float64]
) -> list[str]:
    """Markdown: how often the decided guesses are right, by how sure they are."""
    lines = ["| sure | tiles | right | right, sources weighed |", "|---|---|---|---|"]
    for low, high in ((0.7, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 0.99), (0.99, 1.01)):
        chosen = [
            i
            for i, g in enumerate(guesses)
            if g.decided and g.stain in ("he", "ihc") and low <= g.confidence < high
        ]
        if chosen:
            right = np.array([guesses[i].stain == truths[i] for i in chosen])
            weighed = np.average(right, weights=weights[chosen])
            lines.append(f"| {low:.2f}- | {len(chosen)} | {right.mean():.3f} | {weighed:.3f} |")
    return lines


def labelled(tiles: Path) -> Iterator[tuple[str, str, Path]]:
    """Set, true stain and file of the labelled tiles."""
    for folder in sorted(p.parent for p in tiles.glob("*/labels.csv")):
        for row in read_table(folder / "labels.csv", ("file",)).rows:
            yield folder.name, "ihc" if "ihc" in folder.name else "he", folder / row["file"]


def slides_of(slides: Path) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """Name, true stain and pixels of the pictures and small slides of `SLIDES`."""
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
    rows, shares = [], []
    for row, image in tiles_of(data / "pretrain"):
        found = stain.colour_shares(image)
        if found is not None:
            rows.append(row)
            shares.append(found)
    x, classes = np.array(shares), np.array([class_of(r) for r in rows])
    sources, truths = [source_of(r) for r in rows], [CLASSES[c] for c in classes]
    guesses = held_out(x, classes, sources)
    said = [verdict(g, t) for g, t in zip(guesses, truths, strict=True)]
    by_class = [
        f"{t}: {r['stain'] if t != 'he' else r['src']}" for t, r in zip(truths, rows, strict=True)
    ]
    click.echo("\n".join(table(zip(truths, said, strict=True))) + "\n")
    click.echo("\n".join(table(zip(by_class, said, strict=True))) + "\n")
    click.echo("\n".join(reliability(guesses, truths, weights_of(classes, sources))) + "\n")
    weights, bias = fit(x, classes, weights_of(classes, sources))
    for name, values in (("weights", weights), ("bias", bias)):
        click.echo(f"{name} {np.array2string(values, precision=2, separator=', ')}")
    if report:
        click.echo("| slide | true | guess |\n|---|---|---|")
        for name, truth, image in slides_of(data / "slides"):
            click.echo(f"| {name} | {truth} | {stain.guess_stain(image).text} |")
        click.echo()
        found_rows = [
            (name, verdict(stain.guess_stain(open_image(file)), truth))
            for name, truth, file in labelled(data / "tiles")
        ]
        click.echo("\n".join(table(found_rows)))


if __name__ == "__main__":
    main()

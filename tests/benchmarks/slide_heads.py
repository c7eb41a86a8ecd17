"""Slide heads on simulated slides: `python -m tests.benchmarks.slide_heads --tiles FOLDER`.

FOLDER holds labelled tiles (labels.csv: file, label, group, split). Only its train part is used,
and parts that are split into folds. A slide is simulated from the tiles of a few patients, who are
in no other slide but their own: a positive slide has a share of tiles of the class `--positive`,
a negative one has none. Without `--positive`, the slides of a patient have the patient's label.
Heads are evaluated on five folds by patient, beside logistic regression on the mean of each slide's
tiles (`linear`), whose C is chosen on folds inside. The last line is JSON.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from pathlib import Path

import click
import numpy as np

import pathencoder
from pathencoder import metrics
from pathencoder.features.layouts import Place
from pathencoder.features.provenance import Provenance
from pathencoder.features.store import Content
from pathencoder.features.writer import write_features
from pathencoder.heads import calibration, kinds
from pathencoder.heads.folds import grouped_folds
from pathencoder.heads.rows import Rows, softmax


@click.command()
@click.option("--tiles", "folder", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--positive", help="The class that a few tiles of a positive slide are of.")
@click.option("--encoder", default="pathencoder-tiny")
@click.option("--cohorts", default=16, help="Groups of patients that slides are drawn from.")
@click.option("--slides", default=6, help="Of each cohort.")
@click.option("--size", default=24, help="Tiles of a slide.")
@click.option("--share", default=0.125, help="Share of positive tiles in a positive slide.")
@click.option("--head", "names", multiple=True, default=("linear", *kinds.names("slide")))
@click.option("--seeds", default=3, help="Simulations, each with other slides and folds.")
def main(folder, positive, encoder, cohorts, slides, size, share, names, seeds):
    """Print a table of balanced accuracy and AUROC."""
    rows, labels, groups = embedded(folder, encoder)
    found = {name: [] for name in names}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        made = (
            by_patient(labels, groups, size, rng)
            if positive is None
            else with_few(labels == positive, groups, cohorts, slides, size, share, rng)
        )
        with tempfile.TemporaryDirectory() as temporary:
            write(Path(temporary), made, rows)
            for name in names:
                found[name].append(
                    linear(made, rows, seed)
                    if name == "linear"
                    else fitted(Path(temporary), name, seed)
                )
    print(f"{len(made)} slides of {len({m[1] for m in made})} groups, {size} tiles, {folder.name}")
    print(f"{'head':12s} {'balanced accuracy':>18s} {'AUROC':>14s} {'seconds':>8s}")
    for name, results in found.items():
        (accuracy, area, seconds), spread = np.mean(results, 0), np.std(results, 0)
        print(
            f"{name:12s} {accuracy:11.3f} +- {spread[0]:.3f} {area:7.3f} +- {spread[1]:.3f}"
            f" {seconds:7.0f}"
        )
    print(json.dumps({name: np.round(np.mean(r, 0), 4).tolist() for name, r in found.items()}))


def embedded(folder, name):
    """Rows, labels and groups of the tiles of the train part."""
    with (folder / "labels.csv").open(newline="") as stream:
        kept = [row for row in csv.DictReader(stream) if row["split"] in ("train", "folds")]
    encoder = pathencoder.load_encoder(name)
    rows = encoder.encode([folder / row["file"] for row in kept])
    return (rows, *(np.array([row[column] for row in kept]) for column in ("label", "group")))


def with_few(is_positive, groups, cohorts, slides, size, share, rng):
    """Slides as (label, group, rows): half of each cohort's hold a few positive tiles."""
    patients = np.unique(groups)
    # patients with positive tiles are dealt out first, so that each cohort has some
    positives = np.array([is_positive[groups == p].sum() for p in patients])
    order = np.argsort(-positives + rng.random(len(patients)) * 0.5)
    cohort_of = dict(zip(patients[order], np.arange(len(patients)) % cohorts, strict=True))
    cohort = np.array([cohort_of[group] for group in groups])
    made, few = [], max(1, round(share * size))
    for number in range(cohorts):
        yes = np.flatnonzero((cohort == number) & is_positive)
        no = np.flatnonzero((cohort == number) & ~is_positive)
        if len(yes) < few or len(no) < size:
            continue
        for slide in range(slides):
            count = few if slide % 2 else 0
            drawn = [*rng.choice(yes, count, replace=False)]
            drawn += [*rng.choice(no, size - count, replace=False)]
            made.append(("positive" if count else "negative", f"C{number}", np.array(drawn)))
    if len(made) < 4 * slides:
        raise click.UsageError(
            f"{len(made) // slides} of {cohorts} cohorts have {few} positive and {size} negative"
            " tiles: give fewer --cohorts, or a smaller --size"
        )
    return made


def by_patient(labels, groups, size, rng):
    """A slide for each patient and label: up to `size` of its tiles."""
    made = []
    for group, label in sorted(set(zip(groups.tolist(), labels.tolist(), strict=True))):
        rows = np.flatnonzero((groups == group) & (labels == label))
        made.append((label, group, rng.permutation(rows)[:size]))
    return made


def write(folder, made, rows):
    """The feature files and the table of the slides."""
    provenance = Provenance(
        encoder="simulated",
        revision=None,
        sha256="0" * 64,
        output="embedding",
        transform="none",
        mpp=None,
        target_mpp=0.5,
    )
    lines = ["slide,label,patient"]
    for number, (label, group, drawn) in enumerate(made):
        coords = np.stack([np.arange(len(drawn)) * 224, np.zeros(len(drawn), int)], 1)
        place = Place(
            slide=f"S{number}", coords=coords, mpp=0.5, target_mpp=0.5, side=224, tile_px=224,
            overlap_px=0, size=None,
        )  # fmt: skip
        part = rows[drawn]
        write_features(
            folder / "features" / f"S{number}.h5",
            Content(provenance, (), {}, place=place),
            len(part),
            part.shape[1:],
            lambda start, stop, part=part: part[start:stop],
        )
        lines.append(f"S{number},{label},{group}")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")


def linear(made, rows, seed):
    """The same of logistic regression on means, on the same folds."""
    started = time.perf_counter()
    means = np.stack([rows[drawn].mean(0) for *_, drawn in made])
    labels, groups = [label for label, *_ in made], [group for _, group, _ in made]
    classes, y = np.unique(labels, return_inverse=True)
    read = Rows(means, y, np.unique(groups, return_inverse=True)[1], len(classes), None, seed)
    scores = np.zeros((len(y), len(classes)))
    model, options = kinds.kind("linear"), kinds.options_of("linear", {})
    for inner, outer in grouped_folds(y, read.groups, seed=seed):
        part = read.take(inner)
        scores[outer] = model.fit(part, model.choose(part, options)).logits(means[outer])
    probabilities = softmax(scores / calibration.temperature(scores, y, read.weights))
    accuracy = metrics.balanced_accuracy(y, probabilities.argmax(1))
    scored = probabilities[:, 1] if len(classes) == 2 else probabilities
    return accuracy, metrics.auroc(y, scored), time.perf_counter() - started


def fitted(folder, name, seed):
    """Balanced accuracy, AUROC and seconds of one fit with its report on folds."""
    started = time.perf_counter()
    report = pathencoder.fit(
        name, None, folder / "slides.csv", features=folder / "features", seed=seed
    ).report
    seconds = time.perf_counter() - started
    return report.balanced_accuracy.value, report.auroc.value, seconds


if __name__ == "__main__":
    main()

"""The `robustness` command of training.evaluate: the influence of stain and scanner.

Measured on test parts, and on fields that several scanners scanned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from pathencoder.errors import PathEncoderError
from pathencoder.images import open_image
from pathencoder.metrics import balanced_accuracy
from training.evaluation import robustness as measure
from training.evaluation import shared_options
from training.evaluation.encoders import Subject, open_subject
from training.evaluation.robustness import Floats
from training.evaluation.sets import ProbeSet, open_sets
from training.files import write_text

# Below the folder of slides: one field by five scanners, and one region by two, which is cut into
# fields.
_FIVE = "thumbnails/five_scanners_SCC"
_PAIR = (
    "generic/OS-2_Ki67_hamamatsu_mpp0.227_pyramid.tiff",
    "generic/OS-2_Ki67_olympus_mpp0.346_pyramid.tiff",
)
_STAIN_SET = "crc_polyp5"  # of H&E; its tiles are shifted for the cosine
Figures = dict[str, Any]  # of one encoder, as in the JSON


@click.command()
@click.argument("names", nargs=-1, required=True)
@shared_options.data_folder("Folder with tiles/, nuclei/, slides/.")
@shared_options.chosen_sets(_STAIN_SET)
@click.option(
    "--draws", default=5, show_default=True, help="Draws of every shift that training does not use."
)
@shared_options.cache_folder("runs/probe", "Cut cells are kept here.")
@shared_options.json_file()
def robustness(
    names: tuple[str, ...], data: Path, chosen: str, draws: int, cache: Path, out: Path | None
) -> None:
    """Stain shifts and scanners: names as for `probe`.

    Cosines are of centred embeddings; rank is the effective rank (RankMe). k-NN is read on the test
    parts of the sets, unchanged and under each shift; changes are means over sets with their 95 %
    interval over groups.
    """
    try:
        sets = open_sets(chosen.split(","), data=data, cache=cache, choose=False)
        (stained,) = open_sets([_STAIN_SET], data=data, cache=cache, choose=False)
        rows: dict[str, list[Figures]] = {}
        for subject in (s for name in names for s in open_subject(name)):
            row: Figures = {
                **measure.under_shift(subject, stained, most=1000),
                "knn": _neighbours(subject, sets, draws),
                **_scanners(subject, data / "slides", stained),
            }
            rows.setdefault(subject.name, []).append(row)
            _show(subject.name, row)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    if out:
        write_text(out, json.dumps(rows, indent=1) + "\n")


def _neighbours(subject: Subject, sets: Sequence[ProbeSet], draws: int) -> Figures:
    """Balanced accuracy of k-NN on each set, and its change by each shift, mean over sets."""
    found = {s.name: measure.knn_under_shifts(subject, s, draws=draws) for s in sets}
    changes = {shift: measure.changed_by(list(found.values()), shift) for shift in measure.UNSEEN}
    return {
        "sets": {
            name: {"tiles": len(f.y), "unchanged": round(balanced_accuracy(f.y, f.unchanged), 4)}
            for name, f in found.items()
        },
        "changes": {
            shift: [round(x, 4) for x in (change.value, change.low, change.high)]
            for shift, change in changes.items()
        },
    }


def _show(name: str, row: Figures) -> None:
    click.echo(
        f"{name:24s} cosine under HED shift {row['centred_cosine']:.4f}  rank {row['rank']:.0f}"
    )
    sets, changes = row["knn"]["sets"], row["knn"]["changes"]
    plain = "  ".join(f"{k} {v['unchanged']:.3f} ({v['tiles']:,})" for k, v in sets.items())
    moved = "  ".join(f"{k} {v:+.3f} [{a:+.3f}, {b:+.3f}]" for k, (v, a, b) in changes.items())
    click.echo(f"{'':24s} k-NN unchanged (tiles): {plain}")
    click.echo(f"{'':24s} k-NN changes by: {moved}")
    for title in ("five_scanners", "two_scanners"):
        if title in row:
            click.echo(
                f"{'':24s} {title}: same field {row[title]['same']:.3f}, other fields"
                f" {row[title]['other']:.3f}"
            )


def _scanners(subject: Subject, slides: Path, tiles: ProbeSet) -> dict[str, dict[str, float]]:
    """Cosines of the same field by different scanners, and of different fields.

    Embeddings are centred on the mean of other tiles: centred on their own mean, a few fields
    would have negative cosines whatever they show.
    """
    found: dict[str, dict[str, float]] = {}
    five = sorted((slides / _FIVE).glob("*.png"))
    cut = [measure.fields_of(slides / p) for p in _PAIR if (slides / p).exists()]
    if not cut:
        return found
    centre = measure.background(subject, tiles)
    regions = [_unit(subject.embed_images(fields) - centre) for fields in cut]
    if len(regions) == 2:
        found["two_scanners"] = _same_and_other(regions[0] @ regions[1].T)
    if five:
        scans = _unit(subject.embed_images([open_image(f) for f in five]) - centre)
        pairs = (scans @ scans.T)[np.triu_indices(len(scans), 1)]
        found["five_scanners"] = {"same": _rounded(pairs), "other": _rounded(scans @ regions[0].T)}
    return found


def _same_and_other(cosine: Floats) -> dict[str, float]:
    """Mean cosine of field i with field i by the other scanner, and with the other fields."""
    return {
        "same": _rounded(np.diag(cosine)),
        "other": _rounded(cosine[~np.eye(len(cosine), dtype=bool)]),
    }


def _rounded(cosines: Floats) -> float:
    return round(float(cosines.mean()), 4)


def _unit(x: Floats) -> Floats:
    unit: Floats = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    return unit

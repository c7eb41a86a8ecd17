"""The card of the bundled nuclei network, from its metrics.json and config.json.

    python -m training.publishing.nuclei_card [FIGURES.json ...]

writes the card again. FIGURES.json is what `training.evaluate nuclei --rows otsu,stain,bundled
--json` wrote: its figures take the place of those of the same sets. It may also be what
`training.publishing.overlap nuclei-fcn --json` wrote.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.nuclei.adapt.train import Recipe
from pathencoder.nuclei.scores import SHARE
from pathencoder.nuclei.weights import BUNDLED
from pathencoder.pretrained.folder import CARD, CONFIG, METRICS, WEIGHTS, parse_config, sha256_of
from training.evaluation.nuclei import BUNDLED as ROW
from training.evaluation.nuclei import SETS, NucleiSet, Row, summary
from training.files import write_text
from training.publishing.card import ROOT, SOURCE
from training.publishing.sets_table import overlap_alone

ROWS = ("otsu", "stain", ROW)
_COMMAND = "python -m training.evaluate nuclei --rows otsu,stain,bundled --sets {sets}"
_SAME = 0.001
_OVERLAP = f"python -m training.publishing.overlap {BUNDLED}"
_AREAS = ("Dice", "AJI", "PQ", "F1")
_POINTS = ("F1", "precision", "recall", "positive error")
_FRONT = """---
license: apache-2.0
library_name: pathencoder
pipeline_tag: image-segmentation
tags: [histopathology, pathology, nuclei, instance-segmentation, label-free, he, ihc]
---

"""
_MEANING = """`bundled`: these weights. `otsu`: hematoxylin and watershed. `stain`: the mean of
the three stain maps with the same post-processing, no learning. Points: F1 within 6 px, bcdata
12 px; only some cells are labelled. `positive error`: mean absolute difference between the
positive fractions of matched cells, found and labelled."""
_SEEDS = """Five training seeds, mean ± standard deviation; these weights are seed 0. `ours`: the
stain map and the network. `network_alone`: the network without the map. `paper`: the published
patch-contrastive method, its channel chosen without labels; `paper_oracle`: by this set's own
labels; both on monuseg_test alone. Differences to `stain` are paired over images, with 95 %
intervals."""
_CHOICES = """Made by hand on the labelled training part of MoNuSeg (which variations, how many
steps, the weight of the logit, the scale guess) and, for DAB, on the two training images of the
DeepLIIF sample (from which optical density a nucleus counts as positive); the rule for DAB was
also seen on `bcdata_sample`."""
_LEARNS = """The network learns from crops in which sure nuclei were faded, hollowed, pasted and
shifted: without those it copies its teacher. The published contrast as an extra term takes away
(`with_contrast`), and alone it is below the stain map."""
_LIMITS = """Diagnosis. No set outside these was at hand, so nothing is known of it elsewhere.
Where nobody states the micrometres per pixel, 0.25 is taken unless the nuclei are far too large
or small for that, and the result says so. Merged clumps of dark nuclei are often split wrongly,
and red blood cells or pigment as dark as nuclei are taken for nuclei. On pale, large or
out-of-focus nuclei outlines are too wide."""


def taken(figures: Mapping[str, Mapping[str, Sequence[Sequence[Row]]]]) -> dict[str, Any]:
    """The figures of the card, from those of every image.

    Args:
        figures: What `training.evaluate nuclei --json` wrote: set -> row -> [seeds][images].

    Returns:
        Set -> {"images": their number, "rows": row -> metric -> figure}.

    Raises:
        ConfigError: A row or a set is not known, or a row is missing.
    """
    by_name = {s.name: s for s in SETS}
    found: dict[str, Any] = {}
    for name, rows in figures.items():
        if name not in by_name or set(rows) != set(ROWS):
            raise ConfigError(
                f"{name}: figures of {', '.join(rows)}; the card needs those of"
                f" `{_COMMAND.format(sets=name)}`"
            )
        chosen = by_name[name]
        found[name] = {
            "images": len(rows[ROW][0]),
            "rows": {row: _figures(chosen, rows[row][0]) for row in ROWS},
        }
    return found


def _figures(chosen: NucleiSet, images: Sequence[Row]) -> dict[str, float]:
    names = _AREAS if chosen.radius is None else _POINTS[: 3 + chosen.stained]
    values = summary(chosen, [list(row) for row in images])
    return {name: round(value, 4) for name, value in zip(names, values, strict=True)}


def card_of_nuclei(root: Path = ROOT) -> str:
    """The card, from the files beside the weights.

    Args:
        root: The folder of pathencoder/.
    """
    folder = root / "pathencoder/weights" / BUNDLED
    about, figures = parse_config(folder / CONFIG), parse_config(folder / METRICS)
    parts = [
        f"# {BUNDLED}",
        "Finds nuclei in bright-field images (H&E, and DAB with hematoxylin)."
        f" {about['parameters']:,} parameters, trained without a label. Anyone may use the weights,"
        " for anything (Apache-2.0).",
        "```python\nimport pathencoder\n\n"
        "nuclei = pathencoder.segment_nuclei(image, mpp=0.25)  # an image of 0.25 um per pixel\n"
        "```\n\nor `pathencoder nuclei IMAGE --mpp 0.25 --out DIR`.",
        f"Input: three maps of nuclear stain at {about['input']['mpp']:g} um per pixel, each"
        " shifted and scaled by its own image's Otsu threshold (`pathencoder/nuclei/maps.py`)."
        f" Output: a logit that is added, times {SHARE:g}, to the mean stain map; nuclei are where"
        " the sum is above zero.",
        "## Measured\n\nFigures of the weights with sha256"
        f" `{figures['sha256']}`. Commands run in a clone of {SOURCE}.",
        *_of_weights(figures["bundled"]),
        *_of_seeds(figures),
        f"## Training\n\n{_training(about)}",
        f"Choices. {_flat(_CHOICES)}",
        overlap_alone(figures["overlap"], f"{_OVERLAP} --json OVERLAP.json"),
        f"## Not for\n\n{_flat(_LIMITS)}{_below(figures['bundled'])}",
        "## Citation\n\n```bibtex\n"
        f"@misc{{{BUNDLED},\n  title = {{{BUNDLED}: nuclei without labels}},\n"
        f"  author = {{The pathencoder authors}},\n  url = {{{SOURCE}}},\n"
        f"  note = {{sha256 {figures['sha256']}}}\n}}\n```",
    ]
    return _FRONT + "\n\n".join(parts) + "\n"


def _training(about: Mapping[str, Any]) -> str:
    first, second = Recipe().rounds
    return (
        "Images: the 30 training images of MoNuSeg 2018 (H&E, seven organs, 40x; cut from"
        " open-access TCGA slides). The images alone: no annotation of any set was read in"
        f" training. Two rounds of {first} and {second} steps, seed {about['about']['seed']}, the"
        " weights averaged over the last steps (`pathencoder/nuclei/adapt/train.py`, its defaults)."
    )


def _of_weights(bundled: Mapping[str, Any]) -> list[str]:
    """The figures of these weights, by their command."""
    command = _COMMAND.format(sets=",".join(bundled["sets"]))
    parts = ["### These weights", _flat(_MEANING)]
    for name, found in bundled["sets"].items():
        columns = list(found["rows"][ROW])
        rows = [[row, *(f"{v:.4f}" for v in found["rows"][row].values())] for row in ROWS]
        parts.append(f"**{name} ({found['images']} images)**\n\n{_table(['row', *columns], rows)}")
    return [*parts, f"Command: `{command}` ({bundled['date']})."]


def _below(bundled: Mapping[str, Any]) -> str:
    """The figures by which these weights are below the plain stain map."""
    found = [
        f"{name} ({metric})"
        for name, one in bundled["sets"].items()
        for metric, value in one["rows"][ROW].items()
        if (value < one["rows"]["stain"][metric]) != (metric == "positive error")
    ]
    return (
        f" Worse than the plain stain map, without learning, on {', '.join(found)}."
        if found
        else ""
    )


def _since(figures: Mapping[str, Any]) -> str:
    """How far figures that need no training are from today's, where the code has changed since."""
    far = {
        abs(float(row[metric].split()[0]) - value): f"{title.split()[0]}, {metric}"
        for title, rows in figures["sets"].items()
        for row in rows
        for metric, value in _now(figures, title.split()[0], row["row"]).items()
        if metric in row
    }
    if not far or max(far) < _SAME:
        return ""
    return (
        f" Measured on {figures['date']}; the code has changed since: figures of `otsu` and `stain`"
        f" differ from those above by up to {max(far):.3f} ({far[max(far)]})."
    )


def _now(figures: Mapping[str, Any], name: str, row: str) -> Mapping[str, float]:
    """Today's figures of a row that needs no training; {} where there are none."""
    found = figures["bundled"]["sets"].get(name)
    return found["rows"][row] if found and row in ("otsu", "stain") else {}


def _flat(text: str) -> str:
    """A paragraph as one line."""
    return " ".join(text.split())


def _of_seeds(figures: Mapping[str, Any]) -> list[str]:
    """The figures of five trainings, and of trainings with a part left out."""
    parts = ["### Five seeds", _flat(_SEEDS) + _since(figures)]
    parts += [_of_set(name, rows) for name, rows in figures["sets"].items()]
    parts += [
        f"Command: `{figures['command']}` ({figures['date']}; other columns are in metrics.json).",
        "### What each part adds\n\nOn MoNuSeg's training images (the images it was trained on;"
        " their labels are read here), one seed.",
        *(_of_set(name, rows) for name, rows in figures["ablation"].items()),
        _flat(_LEARNS),
        f"Command: `{figures['ablation_command']}` ({figures['date']}).",
    ]
    return parts


def _of_set(title: str, rows: Sequence[Mapping[str, str]]) -> str:
    columns = [c for c in ("Dice", "AJI", "PQ", "precision", "recall") if c in rows[0]]
    columns = columns if "Dice" in rows[0] else ["F1", *columns]
    less = ["less `stain`"] if "Dice" in rows[0] else []
    cells = [[row[c].replace(" ± 0.0000", "") for c in ("row", *columns, *less)] for row in rows]
    return f"**{title}**\n\n{_table(['row', *columns, *less], cells)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def rewrite(files: Sequence[Path] = (), root: Path = ROOT) -> Path:
    """Write the card again.

    Args:
        files: Figures that take the place of earlier ones of the same sets.
        root: The folder of pathencoder/.

    Returns:
        The card.

    Raises:
        ConfigError: A file is not valid, or the figures of the card are of other weights.
    """
    folder = root / "pathencoder/weights" / BUNDLED
    figures = parse_config(folder / METRICS)
    if figures["sha256"] != sha256_of(folder / WEIGHTS):
        raise ConfigError(f"{folder / METRICS} is of other weights: measure all sets again")
    for file in files:
        found = parse_config(file)
        if "tiles" in found:
            figures["overlap"] = found["sets"]
            continue
        there = figures.setdefault("bundled", {"sets": {}})
        there["sets"].update(taken(found))
        there["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    write_text(folder / METRICS, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / CARD, card_of_nuclei(root))
    return folder / CARD


def main(arguments: list[str]) -> int:
    """Write the card again. Exit status: 0 done, 1 failed."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    try:
        print(rewrite([Path(a) for a in arguments]))
    except PathEncoderError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Make a bundled encoder, with its card, from a finished run.

python -m training.publishing.bundle EXPORT METRICS.json --row ROW --name NAME

EXPORT is an exported encoder: RUN/export, or an average of several runs, each given with --run.
Writes pathencoder/weights/NAME (part of the wheel) and model_cards/NAME (card, figures, logs and
curves).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from safetensors.torch import load_file

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder, whole_file
from pathencoder.pretrained.folder import read_reference, read_spec, write_folder
from pathencoder.tables import read_table
from training.data.corpus import open_corpus
from training.monitor.log import read_log
from training.publishing.average import steps_of
from training.publishing.card import card
from training.report import curves

ROOT = Path(__file__).parents[2]
LICENCES = {
    "Apache-2.0": (ROOT / "LICENSE").read_text(),
    "CC-BY-NC-4.0": (
        """Copyright the pathencoder authors.

The weights in this folder are licensed under the Creative Commons
Attribution-NonCommercial 4.0 International Public License (CC BY-NC 4.0).
You may share and adapt them for non-commercial purposes with attribution.
They come without any warranty. The licence in full:
https://creativecommons.org/licenses/by-nc/4.0/legalcode

They were trained on images some of whose sources forbid commercial use, or state no licence.
"""
    ),
}


@click.command(help=__doc__)
@click.argument("export", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("metrics", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="A run whose weights are in EXPORT.",
)
@click.option(
    "--row", required=True, help="This encoder's row in METRICS.json: default, research ..."
)
@click.option("--name", required=True)
@click.option(
    "--robustness",
    type=click.Path(path_type=Path, exists=True),
    help="JSON of `training.evaluate robustness`, for the card.",
)
@click.option("--note", default="", help="How this encoder was chosen, for the card.")
def main(
    export: Path,
    metrics: Path,
    *,
    runs: tuple[Path, ...],
    row: str,
    name: str,
    robustness: Path | None,
    note: str,
) -> None:
    """Bundle an encoder."""
    try:
        shifts = json.loads(robustness.read_text()) if robustness else None
        measured = json.loads(metrics.read_text())
        bundle(
            export,
            runs or (export.parent,),
            measured=measured,
            row=row,
            name=name,
            robustness=shifts,
            note=note,
        )
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def bundle(
    export: Path,
    runs: Sequence[Path],
    *,
    measured: dict[str, Any],
    row: str,
    name: str,
    robustness: dict[str, Any] | None = None,
    note: str = "",
) -> Path:
    """Write the folders of a bundled encoder below pathencoder/weights and model_cards.

    Args:
        export: The exported encoder.
        runs: The runs whose weights it holds; their configs, logs and curves go beside the card.
        measured: What `training.evaluate probe --json` wrote.
        row: This encoder's row in it.
        name: Name of the bundled encoder.
        robustness: What `training.evaluate robustness --json` wrote.
        note: How this encoder was chosen, for the card.

    Returns:
        The folder below pathencoder/weights.

    Raises:
        PathEncoderError: A file of the export or of a run is missing or not valid, or a file cannot
            be written.
    """
    target, shown = ROOT / "pathencoder/weights" / name, ROOT / "model_cards" / name
    # a maintainer who bundles an encoder has measured it: its figures are beside it
    spec = dataclasses.replace(read_spec(export), name=name, verified=True)
    if spec.licence not in LICENCES:
        raise ConfigError(
            f"{export}: its licence is {spec.licence}; bundled encoders have one of"
            f" {', '.join(LICENCES)}. Train on tiles and a start whose licences are known"
        )
    config = yaml.safe_load((runs[0] / "config.yaml").read_text())
    figures = {
        "command": (
            "python -m training.evaluate probe default research imagenet random --json METRICS.json"
        ),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "weights_sha256": spec.sha256,
        "row": row,
        "note": note,
        "training": {**_record(runs[0]), **cost(runs)},
        "measured": measured,
        "robustness": robustness,
    }
    text = card(spec, config, figures, sources(config))
    reference = read_reference(export)
    if reference is None:
        raise ConfigError(f"{export} has no reference.safetensors: export the run again")
    write_folder(
        target,
        spec,
        load_file(export / "model.safetensors"),
        reference_tile=reference.tile,
        reference_embedding=reference.embedding,
        card=text,
        licence=LICENCES[spec.licence],
        metrics=figures,
    )
    shutil.rmtree(shown, ignore_errors=True)
    make_folder(shown)
    for file in ("README.md", "metrics.json"):
        _copy(target / file, shown / file)
    for run in runs:
        end = "" if len(runs) == 1 else f"-{run.name}"
        _copy(run / "log.jsonl", shown / f"log{end}.jsonl")
        _copy(run / "config.yaml", shown / f"config{end}.yaml")
        curves(run, shown / f"curves{end}.png")
    return target


def _record(run: Path) -> dict[str, Any]:
    """What a run was made from, with its tiles and slides at the top, where the card looks."""
    record: dict[str, Any] = json.loads((run / "data.json").read_text())
    counts = record.get("corpus", record)  # runs before the record of provenance had no corpus
    return {**record, "tiles": counts["tiles"], "slides": counts["slides"]}


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as temporary:
        shutil.copy(source, temporary)


def cost(runs: Sequence[Path]) -> dict[str, Any]:
    """What runs cost, by their logs.

    Args:
        runs: Their folders.

    Returns:
        Number of runs, steps and fields of the crops of each, and the CPU and wall seconds of all.
    """
    last = [read_log(run)[-1] for run in runs]
    crops = [
        yaml.safe_load((run / "config.yaml").read_text())["method"].get("crop") or {}
        for run in runs
    ]
    # a log may end before the last step
    steps = [max(line["step"], steps_of(run)) for run, line in zip(runs, last, strict=True)]
    facts = {
        "runs": len(runs),
        "steps": steps,
        "fields": [crop.get("field", [1.0, 1.0]) for crop in crops],
    }
    return {
        **facts,
        **{f"{k}_seconds": sum(line[f"{k}_s"] for line in last) for k in ("cpu", "wall")},
    }


def sources(config: dict[str, Any]) -> list[tuple[str, str, str, int, int]]:
    """The sources of the images that a run was trained on.

    Args:
        config: The run's configuration.

    Returns:
        (source, stain class, licence class, tiles, slides), those with most tiles first.

    Raises:
        ConfigError: The corpus or its manifest cannot be read.
    """
    data = config["data"]
    root = Path(data["root"])
    corpus = open_corpus(
        root,
        licences=tuple(data["licences"]),
        stains=tuple(data["stains"]),
        without=tuple(data["without"]),
    )
    used = set(corpus.keys)
    tiles = Counter[tuple[str, str, str]]()
    slides: dict[tuple[str, str, str], set[str]] = {}
    for _, r in read_table(
        root / "manifest.csv", required=("shard", "key", "src", "stain_class", "licence", "slide")
    ):
        if r["key"] in used or f"{r['shard']}/{r['key']}" in used:
            kind = (r["src"], r["stain_class"], r["licence"])
            tiles[kind] += 1
            slides.setdefault(kind, set()).add(r["slide"])
    return [(*kind, n, len(slides[kind])) for kind, n in tiles.most_common()]


if __name__ == "__main__":
    main()

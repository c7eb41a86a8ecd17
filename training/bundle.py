"""A finished run as a bundled encoder with its card: python -m training.bundle RUN METRICS.json --row ROW --name NAME

Writes pathencoder/weights/NAME (what the wheel carries) and model_cards/NAME (card, figures, log and curves).
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import click
import yaml
from safetensors.torch import load_file

from pathencoder.errors import PathEncoderError
from pathencoder.folder import read_reference, read_spec, write_folder
from training.card import card
from training.data.corpus import open_corpus
from training.report import curves, read_log

ROOT = Path(__file__).parents[1]
LICENCES = {
    "Apache-2.0": (ROOT / "LICENSE").read_text(),
    "CC-BY-NC-4.0": """Copyright the pathencoder authors.

The weights in this folder are licensed under the Creative Commons Attribution-NonCommercial 4.0 International Public License
(CC BY-NC 4.0). You may share and adapt them for non-commercial purposes with attribution. They come without any warranty.
The licence in full: https://creativecommons.org/licenses/by-nc/4.0/legalcode

They were trained on images some of whose sources forbid commercial use, or state no licence.
""",
}


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("metrics", type=click.Path(path_type=Path, exists=True))
@click.option("--row", required=True, help="This encoder's row in METRICS.json: default, research ...")
@click.option("--name", required=True)
@click.option("--robustness", type=click.Path(path_type=Path, exists=True), help="JSON of `training.evaluate robustness`, for the card.")
@click.option("--note", default="", help="How this run was chosen, for the card.")
def main(run: Path, metrics: Path, row: str, name: str, robustness: Path | None, note: str) -> None:
    """Bundle a run."""
    try:
        shifts = json.loads(robustness.read_text()) if robustness else None
        bundle(run, json.loads(metrics.read_text()), row=row, name=name, robustness=shifts, note=note)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def bundle(run: Path, measured: dict[str, Any], *, row: str, name: str, robustness: dict[str, Any] | None = None, note: str = "") -> Path:
    """Returns the folder below pathencoder/weights."""
    source, target, shown = run / "export", ROOT / "pathencoder/weights" / name, ROOT / "model_cards" / name
    spec = dataclasses.replace(read_spec(source), name=name)
    config = yaml.safe_load((run / "config.yaml").read_text())
    figures = {
        "command": "python -m training.evaluate probe default research imagenet random --json METRICS.json",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "weights_sha256": spec.sha256,
        "row": row,
        "note": note,
        "training": {**json.loads((run / "data.json").read_text()), **cost(run)},
        "measured": measured,
        "robustness": robustness,
    }
    text = card(spec, config, figures, sources(config))
    reference = read_reference(source)
    assert reference is not None  # every export has one
    write_folder(
        target,
        spec,
        load_file(source / "model.safetensors"),
        reference_tile=reference.tile,
        reference_embedding=reference.embedding,
        card=text,
        licence=LICENCES[spec.licence],
        metrics=figures,
    )
    shown.mkdir(parents=True, exist_ok=True)
    for file in ("README.md", "metrics.json"):
        shutil.copy(target / file, shown / file)
    shutil.copy(run / "log.jsonl", shown / "log.jsonl")
    (shown / "config.yaml").write_text((run / "config.yaml").read_text())
    curves(run, shown / "curves.png")
    return target


def cost(run: Path) -> dict[str, Any]:
    """CPU seconds and wall seconds that the log tells of."""
    last = read_log(run)[-1]
    return {"steps": last["step"], "cpu_seconds": last["cpu_s"], "wall_seconds": last["wall_s"]}


def sources(config: dict[str, Any]) -> list[tuple[str, str, str, int, int]]:
    """(source, stain class, licence class, tiles, slides) of the images that a run learnt from, most first."""
    data = config["data"]
    root = Path(data["root"])
    corpus = open_corpus(root, licences=tuple(data["licences"]), stains=tuple(data["stains"]), without=tuple(data["without"]))
    used, tiles, slides = set(corpus.keys), Counter[tuple[str, str, str]](), dict[tuple[str, str, str], set[str]]()
    with (root / "manifest.csv").open(newline="") as file:
        for r in csv.DictReader(file):
            if r["key"] in used:
                kind = (r["src"], r["stain_class"], r["licence"])
                tiles[kind] += 1
                slides.setdefault(kind, set()).add(r["slide"])
    return [(*kind, n, len(slides[kind])) for kind, n in tiles.most_common()]


if __name__ == "__main__":
    main()

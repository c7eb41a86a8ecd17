"""The model card of a bundled encoder: figures from its metrics, all else from its record.

    python -m training.publishing.card [NAME ...]

writes the cards of bundled encoders again (default: all that have a record), from metrics.json
beside the weights and the record and configs in model_cards/NAME. What the record does not hold is
left out, or said to be not recorded.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from pathencoder.pretrained.folder import CARD, METRICS, read_spec
from pathencoder.spec import EncoderSpec
from training.evaluation.report_file import parse_report
from training.evaluation.report_rows import Report
from training.evaluation.whole.table import STAINS
from training.files import write_text
from training.provenance.record import Provenance, Source
from training.publishing import report_figures
from training.publishing.card_use import use
from training.publishing.front import front
from training.publishing.sets_table import overlap_alone, sets

ROOT = Path(__file__).parents[2]
RECORD = "provenance.json"
SOURCE = "https://github.com/pathencoder/pathencoder"
_SHOWN = {
    "provenance": "what it was made from",
    "config": "settings of its runs",
    "log": "their logs",
    "curves": "their curves",
}
# Keys of metrics.json's sources, a row each: source, stain, licence, tiles, slides
SourceRow = tuple[str, str, str, int, int]


def card(
    spec: EncoderSpec,
    configs: Sequence[dict[str, Any]],
    figures: dict[str, Any],
    made_from: Provenance,
    *,
    repo: str | None = None,
) -> str:
    """Write the model card.

    Args:
        spec: The encoder.
        configs: Configurations of the runs whose weights it holds.
        figures: What metrics.json holds: the cost of its training, the sources of its tiles, and
            the report of `training.evaluate all`.
        made_from: The record of the run.
        repo: Its repository on the Hub, "owner/name" or "owner/name@tag"; None: bundled.

    Returns:
        Markdown with the front matter that the Hugging Face Hub reads.

    Raises:
        ConfigError: The figures hold no report of `training.evaluate all`.
    """
    row = figures["row"]
    report = read_figures(figures)
    parts = [
        f"# {spec.name}\n\n{_opening(spec, configs[0], made_from, repo)}",
        use(spec, figures, repo),
        *_measured(spec.name, figures, report),
        _training(spec, configs, figures, made_from, repo),
        _images(figures["training"].get("sources", []), made_from),
        _statements(made_from),
        _limits(figures, made_from, report),
        _citation(spec, repo),
    ]
    top = front(spec, made_from, report, row)
    return top + "\n\n".join(part for part in parts if part) + "\n"


def read_figures(figures: dict[str, Any]) -> Report:
    """The evaluation in metrics.json.

    Raises:
        ConfigError: There is none.
    """
    return parse_report(json.dumps(figures.get("report")), METRICS)


def _measured(name: str, figures: dict[str, Any], report: Report) -> list[str]:
    shared = figures.get("overlap") or {}
    command = f"python -m training.publishing.overlap {name} --json OVERLAP.json"
    weights = (
        "## Measured\n\nEvery figure of this encoder is of the weights with sha256"
        f" `{figures['weights_sha256']}`; metrics.json has all figures with every digit. One"
        f" command gives the figures of all tables, in a clone of {SOURCE}."
    )
    others = {k: v for k, v in shared.items() if k not in {s.name for s in report.sets}}
    return [
        weights,
        report_figures.introduction(report, figures["row"]),
        *report_figures.sections(report, figures["row"]),
        sets(report, shared or None),
        *([overlap_alone(others, command)] if others else []),
    ]


def _opening(
    spec: EncoderSpec, config: dict[str, Any], made_from: Provenance, repo: str | None
) -> str:
    who = (
        "The weights may be used for any purpose"
        if spec.commercial
        else "The weights may be used for non-commercial purposes only"
    )
    corpus = made_from.corpus
    bundled = " It comes with `pip install pathencoder` and works offline." if repo is None else ""
    return (
        f"An encoder of histopathology tiles: {spec.architecture},"
        f" {(spec.parameters or 0) / 1e6:.1f} M parameters, {spec.dim}-dimensional embedding,"
        f" trained by {config['method']['name']} on {corpus.tiles:,} tiles of"
        f" {corpus.slides:,} slides ({_stains(spec.stains)}). {who} ({spec.licence}).{bundled}"
    )


def _training(
    spec: EncoderSpec,
    configs: Sequence[dict[str, Any]],
    figures: dict[str, Any],
    made_from: Provenance,
    repo: str | None,
) -> str:
    about, data = figures["training"], [config["data"] for config in configs]
    runs = about.get("runs", 1)
    sentences = [
        f"{spec.training}.",
        f"Start: {_named(made_from.start) if made_from.start else 'random weights'}.",
        *(f"Taught by {_named(teacher)}." for teacher in made_from.teachers),
        f"Batch {_all(data, 'batch')}, slides drawn with probability ~"
        f" tiles^{_all(data, 'slide_power')}"
        + (
            ", no slide twice in a batch."
            if made_from.corpus.slides >= max(d["batch"] for d in data)
            else "."
        ),
        *_views([config["method"] for config in configs], about),
        *(
            [f"The weights are the plain average of {runs} such runs (arXiv:2203.05482)."]
            if runs > 1
            else []
        ),
        *_rounding(figures),
        _cost(about, made_from),
        *([_package(made_from)] if repo else []),
        (
            f"Configs, logs and curves: [model_cards/{spec.name}]"
            f"({SOURCE}/tree/main/model_cards/{spec.name})."
            if repo is None
            else "Record, settings, log and curves are in training/ of this repository."
        ),
    ]
    lines = "\n".join(f"- {sentence}" for sentence in sentences)
    note = f"\n\n{figures['note']}" if figures.get("note") else ""
    return f"## Training\n\n{lines}{note}"


def _stains(names: Iterable[str]) -> str:
    """Stains in words."""
    return ", ".join(STAINS.get(name, name) for name in names)


def _named(source: Source) -> str:
    return f"{source.name} ({source.licence})"


def _all(parts: Sequence[dict[str, Any]], key: str) -> str:
    """The values of a setting in all runs."""
    return " or ".join(map(str, sorted({part[key] for part in parts})))


def _views(methods: Sequence[dict[str, Any]], about: dict[str, Any]) -> list[str]:
    """Crops, stain jitter and averages, as the configs have them."""
    found = []
    if fields := _fields(about):
        found.append(
            f"The crops of a tile are cut from one field of {fields} of its area, so that"
            " magnification differs only between tiles."
        )
    if colours := [method["colour"] for method in methods if method.get("colour")]:
        classes = _stains(colours[0].get("hed_classes", ["he"]))
        found.append(
            f"Stain jitter along hematoxylin, eosin and DAB for {classes} (scale"
            f" {_all(colours, 'he_scale')}, shift {_all(colours, 'he_shift')}), per colour channel"
            f" for every other stain (scale {_all(colours, 'od_scale')}, shift"
            f" {_all(colours, 'od_shift')})."
        )
    if averages := [method for method in methods if method.get("average")]:
        found.append(
            f"The exported weights are a moving average (decay {_all(averages, 'average')})."
        )
    return found


def _fields(about: dict[str, Any]) -> str:
    """The fields of the crops in words; "" where they are whole tiles."""
    several = {(low, high) for low, high in about.get("fields", []) if (low, high) != (1.0, 1.0)}
    return ", in other runs of ".join(f"{low:.0%} to {high:.0%}" for low, high in sorted(several))


def _cost(about: dict[str, Any], made_from: Provenance) -> str:
    one = made_from.processes == 1
    where = "hardware: not recorded" if made_from.hardware == "unknown" else made_from.hardware
    wall = f" in {_minutes(about['wall_seconds'])} minutes" if "wall_seconds" in about else ""
    return (
        f"It took {_minutes(about['cpu_seconds'])} core-minutes of CPU time{wall}"
        + f" ({'one process' if one else f'the first of {made_from.processes} processes'};"
        f" {where}; {made_from.precision})."
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.2g}"


def _rounding(figures: dict[str, Any]) -> list[str]:
    """How the saved weights agree with those of the training."""
    found = figures.get("parity")
    if not found:
        return []
    cosine = math.floor(min(found["cosine"], 1 - 1e-6) * 1e6) / 1e6
    return [
        f"The weights are saved in fp16; on {found['tiles']} public tiles, their embeddings agree"
        f" with those of the checkpoint in fp32 to cosine {cosine:.6f} or more."
    ]


def _package(made_from: Provenance) -> str:
    commit = f" at commit {made_from.commit[:12]}" if made_from.commit else ""
    return f"Package: pathencoder {made_from.version}{commit}, torch {made_from.torch}."


def _images(sources: list[SourceRow], made_from: Provenance) -> str:
    contents = made_from.corpus.contents
    if sources:
        lines = "| source | stain | licence | tiles | slides or fields |\n|---|---|---|---|---|\n"
        rows: list[SourceRow] = [*sources]
    else:
        lines = "| stain or licence | tiles | slides |\n|---|---|---|\n"
        kinds = (*contents.stains.items(), *contents.licences.items())
        lines += "".join(
            f"| {STAINS.get(name, name)} | {n.tiles:,} | {n.slides:,} |\n" for name, n in kinds
        )
        rows = []
    lines += "".join(
        f"| {source} | {STAINS.get(stain, stain)} | {licence} | {tiles:,} | {slides:,} |\n"
        for source, stain, licence, tiles, slides in rows
    )
    scale = contents.scale
    return (
        f"## Training images\n\n{lines}\nP: weights trained on it may be given to anyone; N: not,"
        " or its source states no licence. Micrometres per pixel: "
        + (
            f"stated for {scale.tiles:,} of {made_from.corpus.tiles:,} tiles, {scale.low:g} to"
            f" {scale.high:g} (5th to 95th percentile), median {scale.median:g}."
            if scale
            else "not recorded."
        )
    )


def _statements(made_from: Provenance) -> str:
    """What maintainers add to the record, said as such."""
    if not made_from.statements and made_from.written_by == "the run":
        return ""
    said = "".join(f"\n- {statement}" for statement in made_from.statements)
    return (
        f"## Statements by the maintainers\n\nThe record of this run was written by"
        f" {made_from.written_by}."
        + (f" What follows comes from them, not from the run:\n{said}" if said else "")
    )


def _limits(figures: dict[str, Any], made_from: Provenance, report: Report) -> str:
    corpus = made_from.corpus
    below = report_figures.below(report, figures["row"])
    ihc = corpus.contents.stains.get("ihc")
    sentences = [
        "Not for diagnosis, nor for any other use on patients: no clinical validation is recorded.",
        *(
            [f"IHC is {ihc.tiles / corpus.tiles:.0%} of the training images."]
            if ihc and ihc.tiles < 0.2 * corpus.tiles
            else []
        ),
        *([f"Below a baseline on {', '.join(below)} (see above)."] if below else []),
        "Stains, magnifications and scanners other than those of the training images are untested;"
        f" those images are {_stains(corpus.contents.stains)}.",
    ]
    lines = "\n".join(f"- {sentence}" for sentence in sentences)
    return f"## Limits and out-of-scope uses\n\n{lines}"


def _citation(spec: EncoderSpec, repo: str | None) -> str:
    """How to cite the weights."""
    where = f"https://huggingface.co/{repo.partition('@')[0]}" if repo else SOURCE
    author = repo.partition("/")[0] if repo else "The pathencoder authors"
    digest = f"sha256 {spec.sha256}" if spec.sha256 else ""
    key = "".join(c if c.isalnum() else "-" for c in spec.name)
    return (
        "## Citation\n\n```bibtex\n"
        f"@misc{{{key},\n  title = {{{spec.name}: an encoder of histopathology tiles}},\n"
        f"  author = {{{author}}},\n  url = {{{where}}},\n"
        f"  note = {{{digest}}}\n}}\n```"
    )


def rewrite(name: str, root: Path = ROOT) -> Path:
    """Write the card of a bundled encoder again, and the page in model_cards that links to it.

    Args:
        name: The encoder's.
        root: The folder of pathencoder/ and model_cards/.

    Returns:
        The card beside the weights.
    """
    written = root / "pathencoder/weights" / name / CARD
    write_text(written, card_of(name, root))
    write_text(root / "model_cards" / name / CARD, page_of(name, root))
    return written


def card_of(name: str, root: Path = ROOT) -> str:
    """The card of a bundled encoder, by its two folders."""
    weights, shown = root / "pathencoder/weights" / name, root / "model_cards" / name
    return card(
        read_spec(weights),
        [yaml.safe_load(file.read_text()) for file in sorted(shown.glob("config*.yaml"))],
        json.loads((weights / METRICS).read_text()),
        Provenance.from_json(json.loads((shown / RECORD).read_text())),
    )


def page_of(name: str, root: Path = ROOT) -> str:
    """The page of model_cards/NAME: links to card and figures, and the files of its runs."""
    shown = sorted(file.name for file in (root / "model_cards" / name).iterdir())
    weights = f"../../pathencoder/weights/{name}"
    lines = [
        f"# {name}\n",
        f"The [card]({weights}/{CARD}) and its [figures]({weights}/{METRICS}) are beside the"
        " weights. Here:\n",
        *(
            f"- {_SHOWN[kind]}: {', '.join(f'[{file}]({file})' for file in files)}"
            for kind in _SHOWN
            if (files := [file for file in shown if file.startswith(kind)])
        ),
    ]
    return "\n".join(lines) + "\n"


def recorded(root: Path = ROOT) -> list[str]:
    """The bundled encoders that have a record."""
    return sorted(file.parent.name for file in (root / "model_cards").glob(f"*/{RECORD}"))


def main(arguments: list[str]) -> int:
    """Write cards again. Exit status: 0 done, 2 wrong usage."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if unknown := set(arguments) - set(recorded()):
        print(f"no record in model_cards: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for name in arguments or recorded():
        print(rewrite(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

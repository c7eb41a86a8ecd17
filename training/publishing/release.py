"""The folder of an encoder as it is published: export, checks, card, record of the training."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from safetensors.torch import load_file

from pathencoder.encoder import load_encoder
from pathencoder.errors import ConfigError, StoreError
from pathencoder.files import make_folder
from pathencoder.pretrained.folder import (
    CARD,
    METRICS,
    WEIGHTS,
    draft_of,
    parse_config,
    read_spec,
    sha256_of,
    write_folder,
)
from pathencoder.runtimes.export import export as export_graph
from pathencoder.runtimes.formats import check_installed
from pathencoder.spec import UNKNOWN_LICENCE, EncoderSpec
from training import config as configs
from training.evaluation.report_file import read_report
from training.evaluation.report_rows import EncoderRow, Report
from training.files import write_text
from training.publishing import parity, timm_check
from training.publishing.card import RECORD, card
from training.publishing.front import score_files
from training.publishing.licence_texts import text_of
from training.publishing.made_of import Made, averaged, exported, opened
from training.publishing.metrics import metrics_of
from training.publishing.own_row import own_row
from training.publishing.public_report import public
from training.report import curves

log = logging.getLogger(__name__)

TRAINING = "training"
STATE = "state"
SCORES = ".eval_results"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_TAG = re.compile(r"\w(?:[\w.+-]*\w)?")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be published.

    Attributes:
        run: The run's folder.
        step: A step with a checkpoint; None: the newest.
        figures: The file of `training.evaluate all`.
        row: The encoder's row in it; None: the one with its weights and readout.
        repo: owner/name.
        tag: The tag that the commit will get, for the commands on the card; None: none.
        overlap: The file of `training.publishing.overlap`; None: not checked.
        note: How the encoder was chosen, for the card.
        with_state: Whether the checkpoint goes beside it.
        with_onnx: Whether an ONNX file goes beside it, which `encode` runs on a CPU.
        overwrite_card: Whether a card that was edited by hand may be replaced.
        others: Other runs whose exports are averaged with that of `run`.
    """

    run: Path
    step: int | None
    figures: Path
    row: str | None
    repo: str
    tag: str | None
    overlap: Path | None
    note: str
    with_state: bool
    with_onnx: bool = False
    overwrite_card: bool = False
    others: tuple[Path, ...] = ()

    @property
    def runs(self) -> list[Path]:
        """All runs, this one first."""
        return [self.run, *self.others]

    @property
    def export(self) -> Path:
        """Where the run's own export of the step is."""
        return self.run / ("export" if self.step is None else f"export-{self.step}")


def write_release(wanted: Wanted, folder: Path) -> Path:
    """Write the folder.

    Args:
        wanted: What is to be published.
        folder: Where; an older release there is replaced, if its card was not edited.

    Returns:
        The folder.

    Raises:
        ConfigError: A name is not valid, the run has no checkpoint or its export fails, the figures
            are missing or of other weights, the licence is not known, the ONNX file computes
            something else, or the card in the folder was edited by hand.
        MissingExtra: A package that writes ONNX is not installed.
        StoreError: The checkpoint is damaged, or the folder cannot be written.
    """
    _refuse_wrong_request(wanted)
    _refuse_other_folder(folder)
    if not wanted.overwrite_card:
        refuse_edited_card(folder, f"the card in {folder}")
    checkpoint = None if wanted.others else opened(wanted.run, wanted.step)
    report = _report(wanted)
    with _whole(folder) as draft:
        raw = draft.with_name(f"{draft.name}.export")
        try:
            if checkpoint is None:
                made = averaged(wanted.runs, raw)
            else:
                made = exported(checkpoint, raw)
                _refuse_other_export(wanted, raw)
            mine = own_row(
                report,
                read_spec(raw),
                file=wanted.figures,
                again=_measure(wanted),
                name=wanted.row,
            )
            _write(wanted, made, report, mine, raw, draft)
        finally:
            shutil.rmtree(raw, ignore_errors=True)
    return folder


def _refuse_wrong_request(wanted: Wanted) -> None:
    """Raise an error where a request cannot be met, before anything is read or computed."""
    if not _REPO.fullmatch(wanted.repo):
        raise ConfigError(f"--repo {wanted.repo!r}: write OWNER/NAME, as on the Hub")
    if wanted.tag is not None and not _TAG.fullmatch(wanted.tag):
        raise ConfigError(
            f"--tag {wanted.tag!r}: a version without spaces or slashes, such as v1.0"
        )
    if not (wanted.run / "config.yaml").is_file():
        raise ConfigError(f"{wanted.run} is no folder of a run: it has no config.yaml")
    if wanted.others and (wanted.step is not None or wanted.with_state):
        raise ConfigError(
            "an average of runs has no checkpoint: publish it without @STEP and --with-state"
        )
    if wanted.with_onnx:
        check_installed("onnx", "fp32")


def _write(
    wanted: Wanted, made: Made, report: Report, mine: EncoderRow, raw: Path, draft: Path
) -> None:
    agreed = parity.check(made.network, raw)
    spec = _spec(wanted, raw)
    reference = timm_check.reference_of(raw)
    written = write_folder(
        draft,
        spec,
        load_file(raw / WEIGHTS),
        reference_tile=reference.tile,
        reference_embedding=reference.embedding,
        licence=text_of(spec.licence),
    )
    by_timm, output = timm_check.check(draft)
    timm_check.add_to_reference(draft, output)
    settings = [_settings(cfg) for cfg in made.configs]
    place = f"{wanted.repo}@{wanted.tag}" if wanted.tag else wanted.repo
    report, row = public(report, mine.name, name=spec.name, place=place)
    metrics = metrics_of(
        report,
        row,
        sha256=str(written.sha256),
        note=wanted.note,
        runs=wanted.runs,
        config=configs.dump(made.configs[0]),
        made_from=made.made_from,
        overlap=wanted.overlap,
        checks={
            "parity": dataclasses.asdict(agreed),
            "timm": dataclasses.asdict(by_timm),
            **({"onnx": _write_onnx(draft)} if wanted.with_onnx else {}),
        },
    )
    text = card(written, settings, metrics, made.made_from, repo=place)
    write_text(draft / CARD, text)
    sealed = {**metrics, "card_sha256": hashlib.sha256(text.encode()).hexdigest()}
    write_text(draft / METRICS, json.dumps(sealed, indent=2, ensure_ascii=False) + "\n")
    _write_training(wanted, settings, raw, draft)
    for file, score in score_files(report, row, repo=wanted.repo).items():
        write_text(make_folder(draft / SCORES) / file, score)
    if wanted.with_state and made.checkpoint:
        shutil.copytree(made.checkpoint, draft / STATE / made.checkpoint.name)


def _spec(wanted: Wanted, raw: Path) -> EncoderSpec:
    """The spec of the export under its published name."""
    # a maintainer who publishes an encoder has measured it: its figures are beside it
    name = wanted.repo.rpartition("/")[2]
    spec = dataclasses.replace(read_spec(raw), name=name, verified=True)
    if spec.licence == UNKNOWN_LICENCE:
        raise ConfigError(
            f"the licence of {wanted.run} is not known, since that of its start or of some tiles is"
            " not: state it in the settings, export.licence=..., if you may, and export again"
        )
    return spec


def _write_onnx(folder: Path) -> dict[str, Any]:
    """Write the ONNX file beside the weights; how it was compared with torch."""
    return export_graph(load_encoder(folder, device="cpu"), folder, say=log.info).check


def _write_training(
    wanted: Wanted, settings: Sequence[dict[str, Any]], raw: Path, draft: Path
) -> None:
    """The record, and settings, log and curves of each run."""
    place = make_folder(draft / TRAINING)
    shutil.copyfile(raw / RECORD, place / RECORD)
    for number, (run, values) in enumerate(zip(wanted.runs, settings, strict=True), 1):
        end = f"-{number}" if wanted.others else ""
        write_text(place / f"config{end}.yaml", yaml.safe_dump(values, sort_keys=False))
        shutil.copyfile(run / "log.jsonl", place / f"log{end}.jsonl")
        curves(run, place / f"curves{end}.png")


def _settings(cfg: configs.Config) -> dict[str, Any]:
    """The settings without the folders of this machine."""
    values: dict[str, Any] = _without_folders(configs.dump(cfg))
    return values


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    text = str(value) if isinstance(value, str | PurePath) else ""
    if PurePath(text).is_absolute() or text.startswith(("~", "..", "./")):
        return PurePath(text).name
    return value


def _report(wanted: Wanted) -> Report:
    if not wanted.figures.is_file():
        raise ConfigError(
            f"no figures at {wanted.figures}: measure the export first, {_measure(wanted)}"
        )
    return read_report(wanted.figures)


def _measure(wanted: Wanted) -> str:
    """The command that measures the export."""
    export, first = wanted.export, ""
    if wanted.others:
        runs = " ".join(f"--average {run}" for run in wanted.others)
        export = wanted.run / "average"
        first = f"python -m training.export {wanted.run} {runs} --out {export}, then "
    out = wanted.run / "evaluation"
    return f"{first}python -m training.evaluate all mine={export} imagenet random --out {out}"


def _refuse_other_export(wanted: Wanted, fresh: Path) -> None:
    """Raise ConfigError where the run's own export is damaged, or not that of its checkpoint."""
    own = wanted.export
    if not own.is_dir():
        return
    again = f"python -m training.export {wanted.run}" + (
        f"@{wanted.step}" if wanted.step is not None else ""
    )
    file = own / WEIGHTS
    if not file.is_file() or sha256_of(file) != sha256_of(fresh / WEIGHTS):
        raise ConfigError(
            f"{own} is not what the checkpoint gives: its export failed, or is of another step."
            f" Export again, {again}, and measure that"
        )


def _refuse_other_folder(folder: Path) -> None:
    """Raise ConfigError where a folder holds something else, which a release would replace."""
    if folder.exists() and not (folder / METRICS).is_file() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} holds something else than an earlier release: choose a new folder with --out"
        )


def refuse_edited_card(folder: Path, what: str) -> None:
    """Raise ConfigError where a card is not the one that was made with the figures beside it.

    Args:
        folder: Holds README.md and metrics.json, or not.
        what: The card, for the message.
    """
    if not ((folder / CARD).is_file() and (folder / METRICS).is_file()):
        return
    made = parse_config(folder / METRICS).get("card_sha256")
    if made is not None and made != sha256_of(folder / CARD):
        raise ConfigError(
            f"{what} was edited by hand: it is not what its {METRICS} gives, and would be"
            " overwritten. Put what was added into --note, or restore the card; --overwrite-card"
            " discards the edits"
        )


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A hidden folder that takes the place of `folder` when the block ends without an error."""
    try:
        with draft_of(folder) as draft:
            yield draft
            with tempfile.TemporaryDirectory(dir=folder.absolute().parent) as old:
                if folder.exists():
                    folder.rename(Path(old) / "old")
                draft.rename(folder)
    except OSError as error:
        raise StoreError(
            f"cannot write {folder}: {error}. Free space there, or choose another with --out"
        ) from error

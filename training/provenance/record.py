"""What a run was made from and with: one record, in its log, checkpoints, export and card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import pathencoder
from pathencoder.pretrained import folder, locate
from pathencoder.spec import UNKNOWN_LICENCE
from training import config, distributed
from training.backbones.known_starts import KNOWN
from training.config import Config
from training.data.contents import Contents, Count, Scale
from training.data.corpus import Corpus
from training.provenance import licences, saved_steps

log = logging.getLogger("training")

_ROOT = Path(__file__).parents[2]
_WEIGHTS = ("start", "continued")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights that a run used.

    Attributes:
        name: Of the encoder, or of the file.
        sha256: Of the weights' file; None where it is not known.
        licence: `unknown` where it is not known.
        commercial: Whether commercial use is known to be allowed.
    """

    name: str
    sha256: str | None
    licence: str
    commercial: bool


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """The tiles of a run.

    Attributes:
        digest: sha256 of the sorted keys (Corpus.digest).
        tiles: Their number.
        slides: The number of slides.
        contents: Tiles and slides by licence and stain, and the stated scale.
        content: sha256 of the tiles' sizes and of samples of their bytes (Tiles.content); None in
            records of older runs.
    """

    digest: str
    tiles: int
    slides: int
    contents: Contents
    content: str | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a run was made from and with.

    Attributes:
        start: The weights that the backbone started with; None: random ones.
        continued: The run whose state this run started with (`start_from`).
        teachers: The encoders that taught it.
        corpus: The tiles.
        earlier: Tiles that earlier steps were trained on, where a change was accepted:
            (first step with the next corpus, the corpus).
        licence: The strictest of start, teachers and tiles; `unknown` where one is not known.
        stated: The user's `export.licence`, which holds for parts whose licence is not known.
        commercial: Whether the licence is known to allow commercial use.
        precision: Of the forward passes.
        processes: Their number.
        hardware: The model of the processor or GPU.
        commit: Of the package, with "-dirty" where files were changed; None outside a checkout.
        version: Of the package.
        torch: The version of torch.
        seed: Of the run.
        settings: sha256 of the settings that the result depends on.
        changed: Settings that differed in earlier steps: (first step with the new value, the change
            in words).
        written_by: "the run", or the people who wrote the record of an older run by hand.
        statements: What maintainers state besides, in sentences.
        canvas_mpp: Micrometres per pixel of the tiles as crops are cut from them (data.mpp); None:
            tiles were used whole.
    """

    start: Source | None
    continued: Source | None
    teachers: tuple[Source, ...]
    corpus: CorpusRecord
    earlier: tuple[tuple[int, CorpusRecord], ...] = ()
    licence: str
    stated: str | None
    commercial: bool
    precision: str
    processes: int
    hardware: str
    commit: str | None
    version: str
    torch: str
    seed: int
    settings: str
    changed: tuple[tuple[int, str], ...] = ()
    written_by: str = "the run"
    statements: tuple[str, ...] = ()
    canvas_mpp: float | None = None

    @property
    def tiles_at_start(self) -> int:
        """The number of tiles that the run began with."""
        return self.earlier[0][1].tiles if self.earlier else self.corpus.tiles

    def to_json(self) -> dict[str, Any]:
        """Plain values, as data.json, a checkpoint and an export hold them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Provenance:
        """The record that `to_json` gave."""
        read = {name: Source(**v) if (v := values[name]) else None for name in _WEIGHTS}
        return cls(
            **{
                **values,
                **read,
                "statements": tuple(values.get("statements", ())),
                "teachers": tuple(Source(**teacher) for teacher in values["teachers"]),
                "corpus": _corpus(values["corpus"]),
                "changed": tuple((step, words) for step, words in values.get("changed", ())),
                "earlier": tuple((step, _corpus(then)) for step, then in values["earlier"]),
            }
        )

    def after(self, step: int, corpus: CorpusRecord) -> Provenance:
        """The record of a run that was trained on another corpus before a step."""
        licence = licences.of_tiles(corpus.contents.licences, self.stated)
        return dataclasses.replace(
            self, earlier=(*self.earlier, (step, corpus)), **self._narrowed(licence)
        )

    def with_changed(self, step: int, changes: Sequence[str]) -> Provenance:
        """The record of a run some of whose settings were others before a step."""
        found = (*self.changed, *((step, words) for words in changes))
        return dataclasses.replace(self, changed=found)

    def averaged_with(self, other: Provenance) -> Provenance:
        """The record of an average of weights with those of another run."""
        return dataclasses.replace(
            self, **self._narrowed(other.licence, commercial=other.commercial)
        )

    def _narrowed(self, licence: str, *, commercial: bool = True) -> dict[str, Any]:
        both = licences.strictest([self.licence, licence])
        free = self.commercial and commercial and licences.is_commercial(both)
        return {"licence": both, "commercial": free}


def of_run(
    cfg: Config, corpus: Corpus, *, device: torch.device, dtype: torch.dtype | None
) -> Provenance:
    """The record of a run, made at its start.

    Args:
        cfg: Its settings, complete.
        corpus: Its tiles.
        device: That of this process.
        dtype: The dtype of autocast; None: fp32.
    """
    start, continued = _start(cfg), _continued(cfg)
    teachers = tuple(_encoder(str(name)) for name in cfg.method.teacher_encoders())
    weights = [s for s in (start, continued, *teachers) if s]
    stated = None if cfg.export.licence == UNKNOWN_LICENCE else cfg.export.licence
    of_weights = [_or_stated(s.licence, stated) for s in weights]
    of_tiles = licences.of_tiles(corpus.contents.licences, stated)
    licence = licences.strictest([*of_weights, of_tiles, stated or licences.OWN])
    if stated and licence != stated:
        log.warning(
            "export.licence=%s: start, teachers and tiles allow only %s, which the export will say",
            stated,
            licence,
        )
    return Provenance(
        start=start,
        continued=continued,
        teachers=teachers,
        corpus=record_of(corpus),
        licence=licence,
        stated=stated,
        commercial=licences.is_commercial(licence)
        and all(s.commercial or s.licence == UNKNOWN_LICENCE for s in weights)
        and cfg.export.commercial is not False,
        precision=str(dtype or torch.float32).removeprefix("torch."),
        processes=distributed.world(),
        hardware=hardware(device),
        commit=_commit(),
        version=pathencoder.__version__,
        torch=torch.__version__,
        seed=cfg.seed,
        settings=digest_of_settings(cfg),
        canvas_mpp=cfg.data.mpp,
    )


def record_of(corpus: Corpus) -> CorpusRecord:
    """The record of a corpus."""
    return CorpusRecord(
        digest=corpus.digest,
        tiles=len(corpus),
        slides=len(corpus.slide_names),
        contents=corpus.contents,
        content=corpus.tiles.content(),
    )


def digest_of_settings(cfg: Config) -> str:
    """sha256 of the settings that the result depends on."""
    values = json.dumps(config.result_changing(config.dump(cfg)), sort_keys=True)
    return hashlib.sha256(values.encode()).hexdigest()


def hardware(device: torch.device) -> str:
    """The model of a GPU, or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    table = Path("/proc/cpuinfo")
    lines = table.read_text(errors="replace").splitlines() if table.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    model = next(named, "") or platform.processor() or platform.machine()
    return model if device.type == "cpu" else f"{model} ({device.type})"


def _or_stated(licence: str, stated: str | None) -> str:
    return stated or licence if licence == UNKNOWN_LICENCE else licence


def _start(cfg: Config) -> Source | None:
    start = cfg.backbone.start
    if not start:
        return None
    if Path(start).suffix != ".safetensors":
        return _encoder(str(start))
    sha256 = folder.sha256_of(start)
    known = KNOWN.get(sha256)
    licence = known.licence if known else UNKNOWN_LICENCE
    return Source(
        name=known.name if known else Path(start).name,
        sha256=sha256,
        licence=licence,
        commercial=licences.is_commercial(licence),
    )


def _encoder(name: str) -> Source:
    spec = locate.describe(name)
    return Source(
        name=spec.name, sha256=spec.sha256, licence=spec.licence, commercial=spec.commercial
    )


def _continued(cfg: Config) -> Source | None:
    """The run of `start_from`; its licence is that of its own record."""
    place = cfg.start_from
    if place is None:
        return None
    own = [place] if (place / "run.json").is_file() else []  # it may be a checkpoint itself
    found = saved_steps.readable([*own, *saved_steps.newest_first(place)])
    record: dict[str, Any] = next((about.get("provenance", {}) for _, about in found), {})
    return Source(
        name=f"the run {place.name}",
        sha256=None,
        licence=record.get("licence", UNKNOWN_LICENCE),
        commercial=record.get("commercial", False),
    )


def _commit() -> str | None:
    """The commit of the package where it is the top of a git checkout."""
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=False
        )
    except OSError:  # git is not installed
        return None
    return found.stdout.strip() or None


def _corpus(values: dict[str, Any]) -> CorpusRecord:
    contents = values["contents"]
    return CorpusRecord(
        digest=values["digest"],
        tiles=values["tiles"],
        slides=values["slides"],
        contents=Contents(
            licences={k: Count(**v) for k, v in contents["licences"].items()},
            stains={k: Count(**v) for k, v in contents["stains"].items()},
            scale=Scale(**contents["scale"]) if contents["scale"] else None,
        ),
        content=values.get("content"),
    )

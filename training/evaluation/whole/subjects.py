"""The rows of an evaluation: the encoders that were asked for, and the baselines beside them.

The baselines are always there: a network with random weights, with ImageNet weights read as usual,
and with ImageNet weights read as the evaluated encoder is (the same readout and input), so that the
effects of training and of the readout can be separated. It is the evaluated encoder's network where
its ImageNet weights are at hand, else MobileNetV2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.network import walk
from pathencoder.pooling import StageRule, stage_rule
from pathencoder.spec import EncoderSpec
from training.backbones.known_starts import KNOWN, MOBILENET_V2, how_to_obtain
from training.config import BackboneSettings
from training.evaluation.encoders import IMAGENET, Subject, open_subject, plain, subject_of
from training.evaluation.report_file import without_places
from training.evaluation.report_rows import Absent, EncoderRow, Transform, Weights

log = logging.getLogger("training")

Role = Literal["evaluated", "random", "imagenet", "imagenet read alike"]
_ALWAYS = ("random", "imagenet")  # may be named, and are there anyway
_INPUT = ("input_size", "resize", "resize_size", "interpolation")
_LAST = "bn2"  # of MobileNetV2 and EfficientNet: its mean is the pooled output


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Attributes:
        name: Of the row.
        role: Evaluated, or which baseline.
        runs: The encoder; several where the row is the mean of training runs.
        weights_sha256: Of the file of each run; None for random weights.
    """

    name: str
    role: Role
    runs: tuple[Subject, ...]
    weights_sha256: tuple[str | None, ...]

    @property
    def key(self) -> str:
        """16 hexadecimal digits of its weights, readouts and preprocessing."""
        if len(self.runs) == 1:
            return self.runs[0].fingerprint[:16]
        return hashlib.sha256("".join(r.fingerprint for r in self.runs).encode()).hexdigest()[:16]

    def described(self) -> EncoderRow:
        """The row of the report."""
        spec = self.runs[0].encoder.spec
        weights = [
            Weights(sha256=sha256, revision=r.encoder.spec.revision, fingerprint=r.fingerprint)
            for r, sha256 in zip(self.runs, self.weights_sha256, strict=True)
        ]
        return EncoderRow(
            name=self.name,
            role=self.role,
            encoder=spec.name,
            architecture=spec.architecture,
            readout=spec.embedding,
            transform=_transform(spec),
            mpp=spec.mpp,
            mpp_range=spec.mpp_range,
            stains=spec.stains if self.role == "evaluated" else (),
            licence=spec.licence,
            dim=spec.dim,
            parameters=spec.parameters,
            weights=tuple(weights),
        )


@dataclass(frozen=True)
class Reading:
    """Encoders that one pass of a network reads.

    Attributes:
        encoder: The network that runs.
        subjects: The encoders.
        columns: Of each, its columns in the output; None: all.
    """

    encoder: Encoder
    subjects: tuple[Subject, ...]
    columns: tuple[NDArray[np.int64] | None, ...]


@dataclass(frozen=True)
class _Start:
    """A network with ImageNet weights.

    Attributes:
        settings: The network.
        sha256: Of the file of its weights.
    """

    settings: BackboneSettings
    sha256: str


def open_rows(names: Sequence[str], imagenet: Sequence[Path]) -> tuple[list[Row], list[Absent]]:
    """The rows of an evaluation.

    Args:
        names: As for `open_subject`; `random` and `imagenet` are there without being named.
        imagenet: Files of ImageNet weights.

    Returns:
        The rows, evaluated encoders first, and baselines that are not there, with the reason.

    Raises:
        ConfigError: Nothing but baselines is named, or a name twice.
        PathEncoderError: An encoder cannot be loaded.
    """
    wanted = [n for n in dict.fromkeys(names) if n not in _ALWAYS]
    if not wanted:
        raise ConfigError(
            "name an encoder beside the baselines: default, a catalogue name, a folder, owner/repo"
        )
    rows = []
    for name in wanted:
        runs = tuple(open_subject(name))
        title = without_places(runs[0].name)
        rows.append(Row(title, "evaluated", runs, tuple(_sha256(r.encoder) for r in runs)))
    if len({r.name for r in rows}) < len(rows):
        raise ConfigError(f"two encoders have one name: {', '.join(r.name for r in rows)}")
    starts, absent = _starts(imagenet)
    untrained = _of_network(rows[0], starts).settings if starts else IMAGENET
    random = subject_of("random", plain(untrained.model_copy(update={"start": None})))
    baselines, missing = _imagenet_rows(rows, starts)
    absent += missing
    return [*rows, *baselines, Row("random", "random", (random,), (None,))], absent


def readings_of(rows: Sequence[Row]) -> list[Reading]:
    """The passes that give all rows: ImageNet rows of one network and input share one."""
    readings: list[Reading] = []
    joint: dict[object, list[Subject]] = {}
    for row in rows:
        if row.role.startswith("imagenet"):
            spec = row.runs[0].encoder.spec
            joint.setdefault((spec.architecture, _transform(spec)), []).append(row.runs[0])
        else:
            readings += [Reading(r.encoder, (r,), (None,)) for r in row.runs]
    readings += [_joined(subjects) for subjects in joint.values()]
    return readings


def _starts(files: Sequence[Path]) -> tuple[list[_Start], list[Absent]]:
    """The files of ImageNet weights that are there; one that is not known is of MobileNetV2."""
    starts, absent = [], []
    for file in files:
        if not file.is_file():
            reason = f"{file} is not there. {how_to_obtain(MOBILENET_V2, file).partition(';')[0]}"
            log.warning("no ImageNet rows of it: %s", reason)
            reason += "; --imagenet FILE"
            absent.append(Absent(set="all", verb="probe", encoder="imagenet", reason=reason))
            continue
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        known = KNOWN.get(sha256, KNOWN[MOBILENET_V2])
        network = {"architecture": known.architecture, "args": known.args, "start": str(file)}
        starts.append(_Start(IMAGENET.model_copy(update=network), sha256))
    return starts, absent


def _of_network(row: Row, starts: Sequence[_Start]) -> _Start:
    """ImageNet weights of the row's network, else the first ones."""
    architecture = row.runs[0].encoder.spec.architecture
    alike = (s for s in starts if s.settings.architecture == architecture)
    return next(alike, starts[0])


def _imagenet_rows(rows: Sequence[Row], starts: Sequence[_Start]) -> tuple[list[Row], list[Absent]]:
    """ImageNet read as usual, then as each evaluated encoder."""
    if not starts:
        return [], []
    usual = _of_network(rows[0], starts)
    readouts: dict[str, tuple[Role, BackboneSettings, str]] = {
        "imagenet, final": ("imagenet", usual.settings, usual.sha256)
    }
    absent = []
    for row in rows:
        spec, start = row.runs[0].encoder.spec, _of_network(row, starts)
        title = "imagenet, read alike" if len(rows) == 1 else f"imagenet, read as {row.name}"
        alike = start.settings.model_copy(
            update={"embedding": spec.embedding, **{n: getattr(spec, n) for n in _INPUT}}
        )
        if spec.embedding != "pool" and stage_rule(spec.embedding) is None:
            network = start.settings.architecture
            reason = f"{network} has no readout {spec.embedding!r}, which {row.name} has"
            absent.append(Absent(set="all", verb="probe", encoder=title, reason=reason))
        elif alike not in (s for _, s, _ in readouts.values()):
            readouts[title] = "imagenet read alike", alike, start.sha256
    found = []
    for title, (role, chosen, sha256) in readouts.items():
        try:
            subject = subject_of(title, plain(chosen))
        except PathEncoderError as error:
            absent.append(Absent(set="all", verb="probe", encoder=title, reason=str(error)))
            continue
        found.append(Row(title, role, (subject,), (sha256,)))
    return found, absent


def _joined(subjects: Sequence[Subject]) -> Reading:
    """One pass of a network that gives the readouts of all subjects."""
    first = subjects[0].encoder
    if len(subjects) == 1:
        return Reading(first, (subjects[0],), (None,))
    rules = [stage_rule(s.encoder.spec.embedding) or StageRule((_LAST,)) for s in subjects]
    every = StageRule(
        tuple(dict.fromkeys(stage for rule in rules for stage in rule.stages)),
        tuple(dict.fromkeys(pool for rule in rules for pool in rule.pools)),
    )
    side = first.spec.input_size
    with torch.inference_mode():
        maps = dict(walk(first.network, torch.zeros(1, 3, side, side)))
    widths = {stage: maps[stage].shape[1] for stage in every.stages}
    places: dict[tuple[str, str], NDArray[np.int64]] = {}
    end = 0
    for pool in every.pools:
        for stage in every.stages:
            places[pool, stage] = np.arange(end, end + widths[stage])
            end += widths[stage]
    columns = [
        np.concatenate([places[pool, stage] for pool in rule.pools for stage in rule.stages])
        for rule in rules
    ]
    text = f"stages:{','.join(every.stages)}/{','.join(every.pools)}"
    spec = dataclasses.replace(first.spec, embedding=text, dim=end)
    return Reading(Encoder(first.network, spec), tuple(subjects), tuple(columns))


def _transform(spec: EncoderSpec) -> Transform:
    return Transform(
        input_size=spec.input_size,
        resize=spec.resize,
        resize_size=spec.resize_size,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
    )


def _sha256(encoder: Encoder) -> str | None:
    """sha256 of the weights' file: as the spec states it, or of the file that was read."""
    if encoder.spec.sha256:
        return encoder.spec.sha256
    if encoder.origin is None:
        return None
    return hashlib.sha256(encoder.origin.weights.read_bytes()).hexdigest()

"""The rows of an evaluation: encoders, sets, figures. Written and read by `report_file`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pathencoder.errors import ConfigError

FORMAT = "pathencoder-evaluation"
SCHEMA = 1

Verb = Literal["probe", "dense", "robustness", "calibration", "eva"]
Stain = Literal["he", "ihc", "special", "cytology", "mixed"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)  # NaN is no JSON


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of one training run.

    Attributes:
        sha256: Of the weights' file, as published; None for random weights.
        revision: Of the repository; None for a folder and for bundled weights.
        fingerprint: sha256 of the tensors, the readout and the preprocessing.
    """

    __pydantic_config__ = _STRICT

    sha256: Sha256 | None
    revision: str | None = None
    fingerprint: Sha256


@dataclass(frozen=True, kw_only=True)
class Transform:
    """The preprocessing, as in `EncoderSpec`: pixels, and mean and standard deviation by channel.

    Attributes:
        input_size: Side of the input.
        resize: "squash" or "shortest".
        resize_size: Side before the crop; None: input_size.
        interpolation: "bilinear" or "bicubic".
        mean: Three values.
        std: Three values.
    """

    __pydantic_config__ = _STRICT

    input_size: int
    resize: str
    resize_size: int | None = None
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class EncoderRow:
    """An encoder, a row of the tables.

    Attributes:
        name: The row's name: "default", "imagenet, pools", "random", a catalogue name, a folder.
        role: "evaluated", or a baseline: "random", "imagenet" (a usual readout of ImageNet
            weights), "imagenet read alike" (the readout and input of the first evaluated encoder).
        encoder: The encoder's own name.
        architecture: Of timm.
        readout: The embedding rule, as in `EncoderSpec.embedding`.
        transform: The preprocessing.
        mpp: The scale of its input, um/px; None: none, or several.
        mpp_range: The scales that its training covered, um/px.
        stains: That it was trained on.
        licence: Of the weights.
        dim: Length of the embedding.
        parameters: Their number.
        weights: One entry for each training run whose mean the row is; most rows have one.
    """

    __pydantic_config__ = _STRICT

    name: str
    role: Literal["evaluated", "random", "imagenet", "imagenet read alike"]
    encoder: str
    architecture: str
    readout: str
    transform: Transform
    mpp: float | None = None
    mpp_range: tuple[float, float] | None = None
    stains: tuple[str, ...] = ()
    licence: str = "unknown"
    dim: Count
    parameters: Count | None = None
    weights: Annotated[tuple[Weights, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class SetRow:
    """A set that figures are measured on.

    Attributes:
        name: The set.
        title: What it shows, in words.
        stain: Of its images.
        groups: What a group is: "patient", "slide", "case", "image", "inferred".
        sha256: Of its sorted list of (file, label, group, split, sha256 of the file).
        licence: As its source states it.
        homepage: Where it is had; "" for sets of one's own.
        small: A sample of a larger public set: not the published benchmark of that name.
        notes: What a reader of its figures should know.
    """

    __pydantic_config__ = _STRICT

    name: str
    title: str
    stain: Stain
    groups: str
    sha256: Sha256
    licence: str = "unknown"
    homepage: str = ""
    small: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a figure may be.

    Attributes:
        low: Lower bound.
        high: Upper bound.
        level: Coverage, .95 for 95 %.
        resampled: What the bootstrap resamples: "patient", "slide", "image" ...
    """

    __pydantic_config__ = _STRICT

    low: float
    high: float
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    resampled: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure.

    Attributes:
        encoder: Name of an `EncoderRow`.
        set: Name of a `SetRow`.
        part: The evaluated part: "test", "val", "folds" (cross-validation by group).
        verb: The protocol.
        metric: Key of `METRICS`.
        condition: What was changed: "" for nothing, "jpeg 50", "rotated 90", "hue" ...
        value: The mean over runs and seeds; None: not defined here, and `notes` say why.
        interval: None: not claimed.
        sd: Over training runs where there are several, else over seeds or draws; None: one value.
        values: The value of every run, seed or draw, in order; () where there is one.
        seeds: Seeds or draws of each run.
        runs: Training runs.
        n: Evaluated tiles or images.
        n_groups: Their groups.
        notes: What the figure does not show.
    """

    __pydantic_config__ = _STRICT

    encoder: str
    set: str
    part: str
    verb: Verb
    metric: str
    condition: str = ""
    value: float | None
    interval: Interval | None = None
    sd: float | None = None
    values: tuple[float, ...] = ()
    seeds: Count = 1
    runs: Count = 1
    n: Count
    n_groups: Count
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of one metric over sets.

    Attributes:
        encoder: Name of an `EncoderRow`.
        title: Of the sets: "H&E sets", "IHC sets" ...
        verb: The protocol.
        metric: Key of `METRICS`.
        value: The mean.
        sets: The sets.
    """

    __pydantic_config__ = _STRICT

    encoder: str
    title: str
    verb: Verb
    metric: str
    value: float
    sets: Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One encoder less another on the same images and the same bootstrap draws.

    Attributes:
        encoder: Name of an `EncoderRow`.
        against: Name of the other `EncoderRow`.
        set: Name of a `SetRow`.
        part: The evaluated part.
        verb: The protocol.
        metric: Key of `METRICS`.
        value: The mean difference.
        interval: Of the difference.
    """

    __pydantic_config__ = _STRICT

    encoder: str
    against: str
    set: str
    part: str
    verb: Verb
    metric: str
    value: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Figures that are not in the file.

    Attributes:
        set: The set.
        verb: The protocol.
        reason: Why, and what to do.
        encoder: Of one encoder alone; "" for all.
    """

    __pydantic_config__ = _STRICT

    set: str
    verb: Verb
    reason: str
    encoder: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of the file.

    Attributes:
        format: `FORMAT`.
        schema: `SCHEMA`.
        date: Of the measurement, YYYY-MM-DD.
        command: Repeats it.
        packages: Package -> version; "python" too.
        encoders: The rows, the evaluated encoders first.
        sets: The sets.
        results: The figures.
        means: Means over sets.
        differences: Paired differences.
        absent: What was not measured, and why.
    """

    __pydantic_config__ = _STRICT

    format: Literal["pathencoder-evaluation"] = "pathencoder-evaluation"
    schema: Literal[1] = 1
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    command: Annotated[str, Field(min_length=1)]
    packages: dict[str, str]
    encoders: Annotated[tuple[EncoderRow, ...], Field(min_length=1)]
    sets: tuple[SetRow, ...]
    results: tuple[Result, ...]
    means: tuple[Mean, ...] = ()
    differences: tuple[Difference, ...] = ()
    absent: tuple[Absent, ...] = ()

    def find(self, **wanted: object) -> list[Result]:
        """The results whose fields have these values, in the order of the file.

        Args:
            **wanted: Fields of `Result`, for example `encoder="default", metric="auroc"`.
        """
        return [r for r in self.results if all(getattr(r, name) == v for name, v in wanted.items())]

    def row(self, name: str) -> EncoderRow:
        """The encoder of a row.

        Raises:
            ConfigError: There is no such row.
        """
        for row in self.encoders:
            if row.name == name:
                return row
        there = ", ".join(row.name for row in self.encoders)
        raise ConfigError(f"the evaluation has no row {name!r}; it has {there}")

    def rows_of(self, sha256: str) -> list[EncoderRow]:
        """The rows of a weights' file: empty where the figures are of other weights."""
        return [r for r in self.encoders if [w.sha256 for w in r.weights] == [sha256]]

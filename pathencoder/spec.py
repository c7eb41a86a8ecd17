"""The description of an encoder: a frozen data class, its validation, and its config.json."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from pathencoder.errors import ConfigError
from pathencoder.pooling import POOLS, stage_rule

SPEC_VERSION = 1
_LARGEST = 4096  # pixels of a side: a larger tile is a slide
_ARCHITECTURE = re.compile(r"\w[\w.-]*")  # no prefix: with one timm loads from other sources
INTERPOLATIONS = ("bilinear", "bicubic")
RESIZES = ("squash", "shortest")
STAINS = ("he", "ihc", "special", "cytology")
UNKNOWN_LICENCE = "unknown"
LAYOUTS = ("timm", "hf_vit", "hf_dinov2", "hf_clip", "dinov2", "dino", "ctranspath", "keep")
# layouts that also select modules of the network (network.build)
_MODULES = ("ctranspath", "keep")
# cls: class token; mean: mean of patch tokens; cls_mean: both concatenated; pool: the network's
# pooled output; head: the pooled output through the network's own last layer (a projection);
# stages:a,b/mean,centre: the outputs of these modules, each pooled in these ways (default: mean)
# and concatenated (CNNs; see pooling.py).
EMBEDDINGS = ("cls", "mean", "cls_mean", "pool", "head")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder: its network, its weights, its input, and its terms of use.

    Sizes are pixels, `mpp` is micrometres per pixel. `embedding` is the readout that the encoder's
    authors recommend.
    """

    name: str
    architecture: str  # a timm architecture
    dim: int  # length of the embedding
    width: int  # channels of one token, or of the last feature map
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    # JSON values; layer classes by their names
    model_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    embedding: str = "cls"
    # the CNN module whose output is `dense`; None: the last before pooling
    dense_stage: str | None = None
    prefix_tokens: int = 0  # class token and registers before the patch tokens (0: not a ViT)
    interpolation: str = "bicubic"
    # squash: the whole tile to a square; shortest: shortest side to resize_size, then centre crop
    resize: str = "squash"
    resize_size: int | None = None  # pixels before the crop; None: input_size
    # the scale that tiles are resampled to; None: unknown, or not a single one
    mpp: float | None = None
    mpp_range: tuple[float, float] | None = None  # the scales that training covered
    stains: tuple[str, ...] = ("he",)
    licence: str = UNKNOWN_LICENCE
    commercial: bool = False
    gate: str | None = None  # the terms that must be accepted before a download; None: none
    repo: str | None = None  # owner/name on the Hub
    revision: str | None = None
    files: tuple[str, ...] = ()  # weight files of the repository, the preferred one first
    sha256: str | None = None  # of the first of `files`, as published
    # file of the repository that gives interpolation and crop when it is loaded, and mean and std
    # where they are NaN here
    config_file: str | None = None
    layout: str = "timm"  # naming of the published keys
    version: str | None = None  # of the weights, set by their publisher
    # what tiles must be before they are given to the encoder, which does not do it; said at load
    expects: str = ""
    # the encoder that it was derived from: name, repository, revision, sha256
    base_model: str | None = None
    parameters: int | None = None
    verified: bool = False  # the embedding was recomputed from the published weights
    summary: str = ""
    training: str = ""  # data and method in a sentence
    reference: str = ""  # paper or page
    note: str = ""  # what is uncertain, and what a user should know before using it

    def __post_init__(self) -> None:
        # JSON and TOML have lists only
        for field in ("mean", "std", "stains", "files", "mpp_range"):
            value = getattr(self, field)
            if isinstance(value, list):
                object.__setattr__(self, field, tuple(value))
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if not _fits(value, str(one.type)):
                raise ConfigError(
                    f"encoder {self.name!r}: {one.name} must be {one.type}, found {value!r:.80}"
                )
        for found, what in self._problems():
            if found:
                raise ConfigError(f"encoder {self.name!r}: {what}")

    def _problems(self) -> list[tuple[bool, str]]:
        return [
            (
                self.dim <= 0 or self.width <= 0,
                f"dim {self.dim} and width {self.width} must be positive",
            ),
            (
                not 0 < self.input_size <= _LARGEST,
                f"input_size {self.input_size}: pixels from 1 to {_LARGEST}",
            ),
            (
                not _ARCHITECTURE.fullmatch(self.architecture),
                f"architecture {self.architecture!r} is not a timm name",
            ),
            (len(self.mean) != 3 or len(self.std) != 3, "mean and std need three values each"),
            (any(s <= 0 for s in self.std), f"std {self.std} must be positive"),
            (
                not self.normalisation_known and self.config_file is None,
                f"mean {self.mean} and std {self.std} must be numbers",
            ),
            (
                self.embedding not in EMBEDDINGS and stage_rule(self.embedding) is None,
                (
                    f"embedding rule {self.embedding!r}: one of {', '.join(EMBEDDINGS)}, or"
                    f" stages:a,b with /{','.join(POOLS)} or some of them"
                ),
            ),
            (
                self.interpolation not in INTERPOLATIONS,
                f"interpolation {self.interpolation!r}: one of {INTERPOLATIONS}",
            ),
            (self.resize not in RESIZES, f"resize {self.resize!r}: one of {RESIZES}"),
            (self.layout not in LAYOUTS, f"layout {self.layout!r}: one of {LAYOUTS}"),
            (not set(self.stains) <= set(STAINS), f"stains {self.stains}: each one of {STAINS}"),
            (
                self.mpp is not None and not 0.01 <= self.mpp <= 100,
                f"mpp {self.mpp} is not the scale of a microscope (0.01 to 100)",
            ),
            (
                self.mpp_range is not None and not _is_range(self.mpp_range),
                f"mpp_range {self.mpp_range}: [finest, coarsest], above 0",
            ),
        ]

    @property
    def normalisation_known(self) -> bool:
        """Whether mean and std are numbers; NaN where the repository's `config_file` holds them."""
        return all(math.isfinite(v) for v in (*self.mean, *self.std))

    @property
    def timm_layout(self) -> str:
        """The layout of these weights once their keys have timm's names."""
        return self.layout if self.layout in _MODULES else "timm"

    @property
    def reading_mpp(self) -> float | None:
        """The default scale for reading slides, in micrometres per pixel.

        `mpp`, or for an encoder of a range of scales the one nearest to 0.5 (20x).
        """
        if self.mpp is not None or self.mpp_range is None:
            return self.mpp
        low, high = self.mpp_range
        return min(max(0.5, low), high)

    def to_config(self) -> dict[str, Any]:
        """The content of `config.json`: timm's hub format and a `pathencoder` section."""
        own = {
            k: v
            for k, v in dataclasses.asdict(self).items()
            if k not in ("architecture", "model_args", "mean", "std")
        }
        return {
            "architecture": self.architecture,
            "num_classes": self.model_args.get("num_classes", 0),
            "num_features": self.width,
            "model_args": {k: v for k, v in self.model_args.items() if k != "num_classes" or v},
            "pretrained_cfg": {
                "input_size": [3, self.input_size, self.input_size],
                "interpolation": self.interpolation,
                "crop_pct": self.input_size / (self.resize_size or self.input_size),
                "crop_mode": "squash" if self.resize == "squash" else "center",
                "mean": list(self.mean),
                "std": list(self.std),
                "num_classes": self.model_args.get("num_classes", 0),
                "license": self.licence,
            },
            "pathencoder": {"spec_version": SPEC_VERSION, **own},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EncoderSpec:
        """Read what `to_config` wrote.

        Args:
            config: The content of a `config.json`.

        Raises:
            ConfigError: It has no `pathencoder` section, is of a newer version, or is incomplete.
        """
        section = config.get("pathencoder")
        own = dict(section) if isinstance(section, dict) else {}
        version = own.pop("spec_version", None)
        if not isinstance(version, int):
            raise ConfigError("config.json has no `pathencoder` section with a spec_version")
        if version > SPEC_VERSION:
            raise ConfigError(
                f"config.json is of spec version {version}, this package reads {SPEC_VERSION}: pip"
                " install -U pathencoder"
            )
        known = {f.name for f in dataclasses.fields(cls)}
        try:
            return cls(
                architecture=config["architecture"],
                model_args=config.get("model_args") or {},
                mean=tuple(config["pretrained_cfg"]["mean"]),
                std=tuple(config["pretrained_cfg"]["std"]),
                **{k: v for k, v in own.items() if k in known},
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"config.json is incomplete ({error}): fetch or export the encoder again"
            ) from error


def _fits(value: object, kind: str) -> bool:
    """Whether a value has the type of a field's annotation."""
    if kind.endswith(" | None"):
        return value is None or _fits(value, kind.removesuffix(" | None"))
    if kind.startswith("tuple["):
        inner = kind.removeprefix("tuple[").split(",")[0].rstrip("]")
        return isinstance(value, tuple) and all(_fits(v, inner) for v in value)
    if isinstance(value, bool):
        return kind == "bool"
    kinds: dict[str, type | tuple[type, ...]] = {
        "str": str,
        "int": int,
        "float": (int, float),
        "dict[str, Any]": dict,
    }
    return kind in kinds and isinstance(value, kinds[kind])


def _is_range(values: tuple[float, ...]) -> bool:
    return len(values) == 2 and 0 < values[0] <= values[1]


def summary(spec: EncoderSpec, parameters: int) -> list[str]:
    """A summary of an encoder in four lines."""
    scale = "scale not known"
    if spec.mpp:
        scale = f"{spec.mpp:g} um/px"
    elif spec.mpp_range:
        scale = f"{spec.mpp_range[0]:g} to {spec.mpp_range[1]:g} um/px"
    pins = [
        f"licence {spec.licence}",
        f"revision {spec.revision}" if spec.revision else "",
        f"sha256 {spec.sha256[:12]}" if spec.sha256 else "",
    ]
    return [
        f"{spec.name}: {spec.architecture}, {parameters / 1e6:.1f} million parameters",
        f"embedding {spec.dim} numbers ({spec.embedding})",
        f"input {spec.input_size} x {spec.input_size} px, {scale}, stains {', '.join(spec.stains)}",
        ", ".join(pin for pin in pins if pin),
    ]

"""What feature files state about their encoder: recorded in a head, compared before it predicts."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathencoder.errors import HeadMismatch
from pathencoder.features.store import FeatureFile
from pathencoder.heads.encoder_record import label_of

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.spec import EncoderSpec

UNKNOWN = "an unknown encoder"
_PUBLISHED = "as published"
_SAME_SCALE = 0.02  # relative difference of two scales that count as one
# field -> what messages call it
_COMPARED = {
    "name": "encoder",
    "sha256": "weights",
    "output": "output",
    "readout": "rule of the readout",
    "views": "views",
    "transform": "preprocessing",
    "precision": "precision",
    "mpp": "scale",
    "dim": "length of a row",
}


@dataclass(frozen=True)
class FeatureRecord:
    """The encoder of feature files, and how it was read, as far as the files state it.

    Files of this package state everything; those of TRIDENT and STAMP a name and a scale; those of
    CLAM nothing. What is not stated is None.

    Attributes:
        name: Of the encoder.
        revision: On the Hub.
        sha256: Of its weights.
        output: The readout, as `Encoder.encode` takes it.
        dim: Length of a row.
        transform: The preprocessing, in one line.
        mpp: Micrometres per pixel at which the tiles were read.
        precision: Of the network: fp32, bf16 or fp16.
        rounded: "float16" where a conversion rounded the rows.
        repo: owner/name on the Hub.
        views: Over which each row is averaged; 1 where the files do not state it.
        readout: The rule of the output, where it is another than the encoder was loaded with.
    """

    name: str
    revision: str | None
    sha256: str | None
    output: str | None
    dim: int
    transform: str | None
    mpp: float | None
    precision: str | None
    rounded: str | None = None
    repo: str | None = None
    views: int = 1
    readout: str | None = None

    @classmethod
    def of(cls, features: FeatureFile) -> FeatureRecord:
        """The record of a feature file."""
        dim = int(features.rows.shape[1])
        said = _recipe(features)
        if not said:
            facts = features.attributes
            name = facts.get("encoder") or facts.get("extractor")
            name = UNKNOWN if name in (None, "None", "") else str(name)
            return cls(name, None, None, None, dim, None, _scale(facts), None)
        spec = features.spec
        return cls(
            name=str(said.get("encoder", UNKNOWN)),
            revision=said.get("revision"),
            sha256=said.get("sha256"),
            output=said.get("output"),
            dim=dim,
            transform=said.get("transform"),
            mpp=said.get("target_mpp"),
            precision=said.get("precision"),
            rounded=said.get("rounded") or ("float16" if features.layout == "stamp" else None),
            repo=None if spec is None else spec.repo,
            views=said.get("views", 1),
            readout=said.get("readout"),
        )

    @property
    def is_known(self) -> bool:
        """Whether the files state which weights made the rows."""
        return self.sha256 is not None

    def label(self) -> str:
        """Name, repository, revision and sha256, where they are known."""
        return label_of(self.name, self.repo, self.revision, self.sha256)

    def difference(self, other: FeatureRecord) -> str:
        """What sets the rows of another record apart, as text; "" where nothing does."""
        for field, what in _COMPARED.items():
            mine, theirs = getattr(self, field), getattr(other, field)
            if field == "name" and self.sha256 is not None and self.sha256 == other.sha256:
                continue  # the same weights from another place
            if field == "mpp" and mine and theirs and abs(theirs / mine - 1) <= _SAME_SCALE:
                continue
            if mine != theirs:
                return f"{what} {_shown(theirs)}, not {_shown(mine)}"
        return ""

    def check(self, features: FeatureFile) -> list[str]:
        """Refuse a feature file of another encoder, readout or scale.

        Returns:
            Notes: what differs and hardly changes what a row means.

        Raises:
            HeadMismatch: The rows are of another encoder, or the file does not state it.
        """
        theirs = FeatureRecord.of(features)
        self.check_record(theirs)
        if theirs.rounded != self.rounded:
            kinds = [f"rounded to {r.rounded}" if r.rounded else "float32" for r in (theirs, self)]
            return [f"the features are {kinds[0]}, the head was fitted on {kinds[1]} ones"]
        return []

    def check_record(self, theirs: FeatureRecord) -> None:
        """Refuse features of another encoder, readout or scale.

        Raises:
            HeadMismatch: They are, or the files do not state it.
        """
        if different := self.difference(theirs):
            raise HeadMismatch(
                f"these features are of {theirs.label()}, the head was fitted on those of"
                f" {self.label()}: {different}. Encode the slide as the slides that the head was"
                " fitted on"
            )

    def check_encoder(self, encoder: Encoder, output: str) -> None:
        """As `check_spec`, for an encoder in memory, which may have been changed."""
        self.check_spec(*made_by(encoder, output))

    def check_spec(self, spec: EncoderSpec, output: str, readout: str | None = None) -> None:
        """Refuse features that an encoder did not make.

        Args:
            spec: Of the encoder. Without the sha256 of its weights, its name counts.
            output: The readout.
            readout: Its rule, where it is another than the encoder was loaded with.

        Raises:
            HeadMismatch: The weights, the readout or the preprocessing are others.
        """
        from pathencoder.features.provenance import describe_transform

        by_name = spec.sha256 is None
        for what, mine, theirs in (
            ("encoder", self.name, spec.name) if by_name else ("weights", self.sha256, spec.sha256),
            ("output", self.output, output),
            ("rule of the readout", self.readout or _PUBLISHED, readout or _PUBLISHED),
            ("preprocessing", self.transform, describe_transform(spec)),
        ):
            if mine is None or mine != theirs:
                raise HeadMismatch(
                    f"the features are of {self.label()}, not of {spec.name}: {what}"
                    f" {_shown(mine)}, not {_shown(theirs)}. Encode the slides with it, or give"
                    " None in place of an encoder: the feature files state theirs"
                )

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values; as earlier versions read it where no rule is stated."""
        content = dataclasses.asdict(self)
        return content if self.readout else {k: v for k, v in content.items() if k != "readout"}


def made_by(encoder: Encoder, output: str) -> tuple[EncoderSpec, str, str | None]:
    """What features that an encoder in memory makes are checked against: `check_spec`'s arguments.

    The spec states the sha256 of the weights that are in use, as feature files do.
    """
    from pathencoder.features.provenance import own_readout
    from pathencoder.runtimes.unchanged import sha256_in_use

    weights = sha256_in_use(encoder.network, encoder.origin)
    return dataclasses.replace(encoder.spec, sha256=weights), output, own_readout(encoder, output)


def _recipe(features: FeatureFile) -> dict[str, Any]:
    try:
        said = json.loads(str(features.attributes.get("recipe", "")))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _scale(facts: dict[str, Any]) -> float | None:
    """Micrometres per pixel of the tiles of another program, where it states them."""
    if facts.get("tile_size_um") and facts.get("tile_size_px"):  # STAMP
        return float(facts["tile_size_um"]) / float(facts["tile_size_px"])
    if facts.get("target_magnification"):  # TRIDENT
        return 10 / float(facts["target_magnification"])
    return None


def _shown(value: Any) -> str:
    if value is None:
        return "not stated"
    return f"{value:g} um/px" if isinstance(value, float) else str(value)

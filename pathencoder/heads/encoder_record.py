"""The encoder that a head was fitted on: recorded in the head, and compared before it is used."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder.errors import HeadMismatch, PathEncoderError
from pathencoder.features.provenance import describe_transform, own_readout
from pathencoder.runtimes.unchanged import sha256_in_use
from pathencoder.weights_digest import digest_of_network

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.stream import Settings


@dataclass(frozen=True)
class EncoderRecord:
    """An encoder and how its rows were read: everything that decides the numbers.

    Attributes:
        name: Of the encoder.
        revision: On the Hub.
        sha256: Of the published weights file, which names the encoder.
        digest: sha256 of the weights as they were in memory: it differs from the published ones
            where the encoder was trained, or loaded in another dtype.
        output: The readout, as `Encoder.encode` takes it.
        dim: Length of a row.
        transform: The preprocessing, in one line.
        mpp: Micrometres per pixel that the encoder works at; None: unknown, or a range.
        image_mpp: The scale of the images that was given; None: images are resized whole.
        precision: Of the network: fp32, bf16 or fp16.
        views: Over which each row is averaged, as `Encoder.encode` takes it.
        repo: owner/name on the Hub.
        folder: The folder that it was loaded from, on the machine where the head was fitted.
        weights: sha256 that feature files state of the same weights, where it is not `sha256`: the
            encoder was changed, or its publisher gives none.
        readout: The rule of the output, where it is another than the encoder was loaded with.
    """

    name: str
    revision: str | None
    sha256: str | None
    digest: str
    output: str
    dim: int
    transform: str
    mpp: float | None
    image_mpp: float | None
    precision: str
    repo: str | None = None
    folder: str | None = None
    views: int = 1
    weights: str | None = None
    readout: str | None = None

    @classmethod
    def of(
        cls, encoder: Encoder, output: str, image_mpp: float | None, views: int = 1
    ) -> EncoderRecord:
        """The record of an encoder as it is now."""
        weights = sha256_in_use(encoder.network, encoder.origin)
        found = cls._compared(encoder, output, image_mpp, views)
        return dataclasses.replace(found, weights=None if weights == found.sha256 else weights)

    @classmethod
    def _compared(
        cls, encoder: Encoder, output: str, image_mpp: float | None, views: int
    ) -> EncoderRecord:
        """The record without `weights`, for which the file of the weights is read."""
        spec = encoder.spec
        return cls(
            name=spec.name,
            revision=spec.revision,
            sha256=spec.sha256,
            digest=weights_digest(encoder),
            output=output,
            dim=encoder.as_module(output=output).num_features,
            transform=describe_transform(spec),
            mpp=spec.mpp,
            image_mpp=image_mpp,
            precision=encoder.precision_used(),
            repo=spec.repo,
            folder=None if encoder.folder is None else str(encoder.folder),
            views=views,
            readout=own_readout(encoder, output),
        )

    def settings(self) -> Settings:
        """How the encoder is read, for `Encoder.results`."""
        from pathencoder.stream import Settings

        return Settings(output=self.output, views=self.views)

    def label(self) -> str:
        """Name, repository, revision and sha256, where they are known."""
        return label_of(self.name, self.repo, self.revision, self.sha256)

    def check(self, encoder: Encoder) -> None:
        """Refuse an encoder that would give other numbers.

        Raises:
            HeadMismatch: Its weights, readout, preprocessing or precision differ.
        """
        theirs = self._compared(encoder, self.output, self.image_mpp, self.views)
        fitted = f"this head was fitted on {self.label()}"
        if theirs.digest != self.digest:
            why = (
                "its weights have the same origin, but were changed since they were loaded, or"
                " loaded in another dtype"
                if theirs.sha256 == self.sha256 and self.sha256 is not None
                else "its weights are others"
            )
            raise HeadMismatch(
                f"{fitted}, not on {theirs.label()}: {why}. Load the encoder that is named first,"
                " or fit a head on this one"
            )
        for name, mine, other in (
            ("readout", *self._readouts(encoder, theirs)),
            ("preprocessing", self.transform, theirs.transform),
            ("precision", self.precision, theirs.precision),
            ("scale", self.mpp, theirs.mpp),
        ):
            if mine != other:
                raise HeadMismatch(
                    f"{fitted} with the {name} {mine}, not {other}: load the encoder as it was"
                )

    def _readouts(self, encoder: Encoder, theirs: EncoderRecord) -> tuple[str, str]:
        """The rule of the readout here and of an encoder, equal where they give the same numbers.

        An encoder that was saved with its own rule has it as the published one afterwards. The
        record of an encoder that was built by hand may be of a version that stated no rule.
        """
        rule = encoder.spec.embedding if self.output == "embedding" else encoder.spec.dense_stage
        by_hand = self.readout is None and encoder.origin is None
        if by_hand or self.readout in (theirs.readout, rule):
            return "", ""
        return self.readout or "as published", theirs.readout or "as published"

    def load(self, device: str = "auto") -> Encoder:
        """Load the encoder by its name, repository or folder, and check it.

        Raises:
            HeadMismatch: It cannot be found, or is another one by now.
        """
        from pathencoder.encoder import load_encoder

        reasons = []
        for name, revision in self._places():
            try:
                encoder = load_encoder(name, revision=revision, device=device)
                self.check(encoder)
            except PathEncoderError as error:
                reasons.append(f"{name}: {error}")
                continue
            return encoder
        tried = "; ".join(reasons) or "it has neither a public name nor a folder"
        raise HeadMismatch(
            f"the encoder of this head, {self.label()}, cannot be loaded ({tried}). Give it:"
            " load_head(..., encoder=...), or --encoder"
        )

    def _places(self) -> list[tuple[str, str | None]]:
        """What `load_encoder` may find it by, with the revision."""
        from pathencoder.pretrained import catalogue

        places: list[tuple[str, str | None]] = []
        if known := catalogue.find(self.name):
            places.append((known, None))
        if self.folder is not None and Path(self.folder).is_dir():
            places.append((self.folder, None))
        if self.repo is not None and not known:
            places.append((self.repo, self.revision))
        return places

    def to_json(self, *, with_folder: bool = True) -> dict[str, Any]:
        """The record as JSON values; without the folder it names no path of this machine."""
        folder = self.folder if with_folder else None
        content = dataclasses.asdict(dataclasses.replace(self, folder=folder))
        # as earlier versions write and read it
        unset = [name for name in ("weights", "readout") if content[name] is None]
        return {name: value for name, value in content.items() if name not in unset}


def weights_digest(encoder: Encoder) -> str:
    """Hex sha256 of an encoder's weights in memory: `digest_of_network`."""
    return digest_of_network(encoder.network)


def label_of(name: str, repo: str | None, revision: str | None, sha256: str | None) -> str:
    """An encoder's name, and its repository, revision and sha256 where they are known."""
    facts = (
        repo if repo != name else None,
        f"revision {revision}" if revision else None,
        f"sha256 {sha256[:12]}" if sha256 else None,
    )
    known = ", ".join(fact for fact in facts if fact)
    return f"{name} ({known})" if known else name

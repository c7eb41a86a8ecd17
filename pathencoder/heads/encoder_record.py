"""The encoder that a head was fitted on: recorded in the head, and compared before it is used."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder.errors import HeadMismatch, PathEncoderError
from pathencoder.features.provenance import describe_transform
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
        sha256: Of the published weights file.
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

    @classmethod
    def of(
        cls, encoder: Encoder, output: str, image_mpp: float | None, views: int = 1
    ) -> EncoderRecord:
        """The record of an encoder as it is now."""
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
            HeadMismatch: Its weights, preprocessing or precision differ.
        """
        theirs = EncoderRecord.of(encoder, self.output, self.image_mpp, self.views)
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
            ("preprocessing", self.transform, theirs.transform),
            ("precision", self.precision, theirs.precision),
            ("scale", self.mpp, theirs.mpp),
        ):
            if mine != other:
                raise HeadMismatch(
                    f"{fitted} with the {name} {mine}, not {other}: load the encoder as it was"
                )

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
        return dataclasses.asdict(dataclasses.replace(self, folder=folder))


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

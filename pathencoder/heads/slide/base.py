"""What heads of slides share: feature files in, scores and the weight of each tile out."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, HeadMismatch, PathEncoderError, StoreError
from pathencoder.features.containers import feature_files, is_zarr
from pathencoder.features.store import FeatureFile, read_features
from pathencoder.heads.data.check import similar
from pathencoder.heads.data.empty import is_no_value
from pathencoder.heads.data.read import text_of
from pathencoder.heads.digest import digest_of
from pathencoder.heads.rows import Floats
from pathencoder.heads.saved import SavedHead
from pathencoder.heads.slide.bags import unusable
from pathencoder.heads.slide.model import SlideModel
from pathencoder.heads.slide.options import PATIENT
from pathencoder.heads.slide.record import FeatureRecord
from pathencoder.images import Key
from pathencoder.stream import OnError
from pathencoder.walk import expanded, printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

log = logging.getLogger(__name__)
Files: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"


ONE_BY_ONE = (
    "the head was fitted with all slides of a patient as one, and predicts each file by itself"
    " here: a patient with several slides has several predictions. head.predict(files,"
    " patients=[...]) gives a patient one"
)


@dataclass(frozen=True)
class Attention:
    """How much each tile of a slide counts. Unpacks as `coords, weights`.

    Attributes:
        coords: Top left corner of each tile, x and y in level-0 pixels, int64 [N, 2]; as in
            `FeatureFile.coords`. None for images.
        weights: float64 [N], of sum 1: the mean over the networks of the head.
        by_network: The same for each network, [S, N].
    """

    coords: NDArray[Any] | None
    weights: Floats
    by_network: Floats

    def __iter__(self) -> Iterator[Any]:
        """`coords, weights`."""
        return iter((self.coords, self.weights))

    @property
    def agreement(self) -> float:
        """Mean correlation of the weights of two networks; NaN for one network, or equal weights.

        A map of networks that do not agree shows chance.
        """
        varying = self.by_network[self.by_network.std(1) > 0]
        if len(varying) < 2:
            return float("nan")
        found = np.corrcoef(varying)
        return float(found[np.triu_indices(len(found), 1)].mean())


@dataclass
class FeatureHead(SavedHead):
    """A head on feature files.

    Attributes:
        kind: "abmil", "slide-mean" or "slide-max".
        model: Bags of tiles to scores.
        record: What the feature files state about their encoder.
    """

    kind: str
    model: SlideModel
    record: FeatureRecord

    @property
    def by_patient(self) -> bool:
        """Whether it was fitted with all slides of a patient as one."""
        settings: dict[str, Any] = getattr(self, "settings", {})  # of each kind of head
        return bool(settings.get("bag") == PATIENT)

    def use(self, encoder: Encoder) -> None:
        """Check that an encoder is the one of the features; the head itself needs none.

        Raises:
            HeadMismatch: It is another one.
        """
        self.record.check_encoder(encoder, str(self.record.output))

    def digest(self) -> str:
        """A hash of all that predictions depend on."""
        return digest_of(self._content(for_hub=True))

    def scores(
        self, features: Files, patients: Sequence[str] | None, on_error: OnError
    ) -> tuple[list[Key], Floats, dict[Key, str]]:
        """The scores of slides, or of patients.

        Args:
            features: A feature file, a list of them, or a folder of them.
            patients: The patient of each file. None: each file is a bag.
            on_error: "raise" stops at the first file that cannot be used; "nan" leaves it without.

        Returns:
            Keys; scores [B, C], NaN where a file cannot be used; and why it cannot, by key.

        Raises:
            StoreError: A file cannot be read.
            HeadMismatch: The features are of another encoder.
            ConfigError: A slide has no tiles, or a setting does not fit.
        """
        if on_error not in ("raise", "nan"):
            raise ConfigError(f"on_error={on_error!r}: 'raise' or 'nan'")
        if patients is None and self.by_patient:
            log.warning("%s", ONE_BY_ONE)
        keys, found, errors = list[Key](), list[Floats | None](), dict[Key, str]()
        for key, files in bags_of(files_of(features), patients):
            keys.append(key)
            try:
                tiles = np.concatenate([self.read(file).rows for file in files])
                found.append(self.model.logits([tiles])[0])
            except PathEncoderError as error:
                if on_error == "raise":
                    raise
                errors[key] = str(error)
                found.append(None)
        width = self.model.members[0]["out_bias"].shape[0]
        table = [np.full(width, np.nan) if row is None else row for row in found]
        return keys, np.asarray(table, np.float64).reshape(len(keys), width), errors

    def attention(self, file: str | os.PathLike[str]) -> Attention:
        """How much each tile of a slide counts: the attention, averaged over the networks.

        Of "slide-max", the share of the hidden units whose largest value is at the tile.

        Args:
            file: The feature file of the slide.

        Returns:
            Coordinates and weights; `coords, weights = head.attention(file)`.

        Raises:
            StoreError: The file cannot be read.
            HeadMismatch: The features are of another encoder.
            ConfigError: The slide has no tiles, or the head weighs every tile the same.
        """
        found = self.read(file)
        by_network = self.model.weights(found.rows)
        return Attention(found.coords, by_network.mean(0), by_network)

    def read(self, file: str | os.PathLike[str]) -> FeatureFile:
        """Read a feature file, and check that it is one of this head's encoder.

        Raises:
            StoreError: It cannot be read.
            HeadMismatch: The features are of another encoder.
            ConfigError: It holds no tiles, or numbers that are not finite.
        """
        found = read_features(file)
        why = unusable(found)
        if why and len(found.rows):
            raise ConfigError(f"{file}: {why}")
        try:
            self.record.check(found)
        except HeadMismatch as error:
            raise HeadMismatch(f"{file}: {error}") from error
        if why:
            raise ConfigError(f"{file}: {why}")
        return found


def bags_of(files: Sequence[Path], patients: Sequence[str] | None) -> list[tuple[str, list[Path]]]:
    """The files of each prediction with its key.

    Raises:
        ConfigError: There is not one patient a file, a name is empty, or two are one in two
            spellings.
    """
    if patients is None:
        return [(printable(file.stem), [file]) for file in files]
    if isinstance(patients, str | bytes) or len(patients) != len(files):
        raise ConfigError(f"patients holds {len(patients)} names for {len(files)} feature files")
    members: dict[str, list[Path]] = defaultdict(list)
    for name, file in zip(map(text_of, patients), files, strict=True):
        if is_no_value(name):
            raise ConfigError(
                f"patients: none is named for {printable(file)}: slides without a patient would"
                " become one. Name it, or leave patients= out"
            )
        members[name].append(file)
    for problem in similar(members, "patients"):
        raise ConfigError(problem)
    return list(members.items())


def files_of(features: Files) -> list[Path]:
    """The feature files of a folder, or those that were given.

    Raises:
        StoreError: A folder holds none.
    """
    if isinstance(features, str | os.PathLike):
        path = expanded(features)
        if path.is_dir() and not is_zarr(path):
            found = feature_files(path)
            if not found:
                raise StoreError(
                    f"{printable(path)} holds no feature files: `pathencoder encode slides/ --out"
                    " features` writes them"
                )
            return found
        return [path]
    return [expanded(file) for file in features]

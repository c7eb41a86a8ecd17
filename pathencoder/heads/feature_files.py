"""Predict on the rows of a feature file, where they are of the head's encoder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pathencoder.errors import HeadMismatch
from pathencoder.features.provenance import own_readout
from pathencoder.features.store import FeatureFile
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.runtimes.unchanged import sha256_in_use

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

_PUBLISHED = "as published"


def check_rows(
    record: EncoderRecord, features: FeatureFile, encoder: Encoder | None = None
) -> list[str]:
    """Compare what a feature file says of its rows with the encoder of a head.

    Args:
        record: The head's.
        features: The file.
        encoder: That the head has loaded, whose weights were compared with those of the fit: files
            state its sha256, also where it was saved anew since, and where an earlier version wrote
            the record. None: the record alone counts.

    Returns:
        Notes: what differs and does not change what a row means.

    Raises:
        HeadMismatch: The rows are of another encoder, readout, number of views or preprocessing, or
            the file does not say.
    """
    said = _recipe(features)
    weights, readout = record.weights or record.sha256, record.readout
    if encoder is not None:
        weights = sha256_in_use(encoder.network, encoder.origin)
        readout = own_readout(encoder, record.output)
    for name, mine, theirs in (
        ("weights", weights, said.get("sha256")),
        ("output", record.output, said.get("output")),
        ("readout", readout or _PUBLISHED, said.get("readout", _PUBLISHED)),
        ("views", record.views, said.get("views", 1)),
        ("preprocessing", record.transform, said.get("transform")),
        ("precision", record.precision, said.get("precision", "fp32")),
    ):
        if mine is None or mine != theirs:
            raise HeadMismatch(
                f"these features are of {said.get('encoder', 'an unknown encoder')} ({name}"
                f" {theirs}), the head was fitted on {record.label()} ({name} {mine}): encode the"
                " slide as the images of the head were"
            )
    scale = said.get("target_mpp")
    notes = list[str]()
    if features.coords is None:
        _check_scale(record, said)
    elif record.image_mpp is None:
        notes.append(
            "the images of the head were resized whole, whatever their scale; these tiles were read"
            + ("" if scale is None else f" at {scale:g} um/px")
            + ": a head that is fitted with mpp= reads both alike"
        )
    if scale is not None and record.mpp is not None and abs(scale / record.mpp - 1) > 0.02:
        notes.append(f"tiles were read at {scale:g} um/px, the encoder works at {record.mpp:g}")
    return notes


def _check_scale(record: EncoderRecord, said: dict[str, Any]) -> None:
    """Refuse rows of images that were resampled where those of the head were resized whole."""
    mine, theirs = record.image_mpp, said.get("mpp")
    if (mine is None) == (theirs is None):
        return
    whole = "were resized whole"
    raise HeadMismatch(
        f"these images {whole if theirs is None else f'were read as of {theirs:g} um/px'}, those of"
        f" the head {whole if mine is None else f'as of {mine:g} um/px'}: encode them again"
        f" {'without --mpp' if mine is None else 'with --mpp'}, or fit the head in the same way"
    )


def _recipe(features: FeatureFile) -> dict[str, Any]:
    try:
        said = json.loads(str(features.attributes.get("recipe", "")))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}

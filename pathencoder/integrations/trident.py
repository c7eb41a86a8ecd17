"""An encoder as TRIDENT's CustomInferenceEncoder.

    from pathencoder.integrations.trident import custom_encoder

    slide.extract_patch_features(custom_encoder("pathencoder-tiny"), coords_path, save_features=OUT)

TRIDENT is not on PyPI: https://github.com/mahmoodlab/TRIDENT.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pathencoder import compat
from pathencoder.errors import MissingExtra
from pathencoder.features.encode import as_encoder

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

compat.import_timm()  # TRIDENT imports torchvision, which may not fit torch
try:
    from trident.patch_encoder_models.load import CustomInferenceEncoder
except ImportError as error:
    raise MissingExtra(
        "pathencoder.integrations.trident needs TRIDENT: pip install"
        " git+https://github.com/mahmoodlab/TRIDENT"
    ) from error


def custom_encoder(
    encoder: Encoder | str | os.PathLike[str] | None = None, *, output: str = "embedding"
) -> Any:
    """An encoder for TRIDENT's `extract_patch_features`.

    Args:
        encoder: An `Encoder`, or a name for `load_encoder`. None: the default encoder.
        output: As for `Encoder.encode`, but for "dense".

    Returns:
        TRIDENT's CustomInferenceEncoder, with the encoder's preprocessing, in the dtype of its
        weights. TRIDENT names the folder of features after the encoder.

    Raises:
        PathEncoderError: The encoder cannot be loaded, or does not have the output.
    """
    found = as_encoder(encoder)
    return CustomInferenceEncoder(
        enc_name=found.spec.name,
        model=found.as_module(output=output),
        transforms=found.transform,
        precision=found.dtype,
    )

"""A module by name, for the configuration files of other tools."""

from __future__ import annotations

import os

from pathencoder.encoder import load_encoder
from pathencoder.module import EncoderModule, InputFormat


def load_module(
    name: str | os.PathLike[str] | None = None,
    *,
    output: str = "embedding",
    input_format: InputFormat = "normalised",
    revision: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
) -> EncoderModule:
    """`load_encoder(name).as_module()` in one call.

    A configuration file can name it where a tool takes a function that returns a module; eva's
    `ModelFromFunction` for example:

        class_path: eva.models.ModelFromFunction
        init_args:
          path: pathencoder.load_module
          arguments: {name: pathencoder-tiny}

    Args:
        name: As for `load_encoder`, as are revision, device and dtype.
        output: As for `Encoder.as_module`.
        input_format: As for `Encoder.as_module`.
        revision: A branch, tag or commit of the repository.
        device: "auto" takes cuda, then mps, then cpu.
        dtype: Of the parameters, by name ("bf16", "fp16"). None: float32.

    Returns:
        The module, in eval mode.

    Raises:
        PathEncoderError: As for `load_encoder` and `Encoder.as_module`.
    """
    encoder = load_encoder(name, revision=revision, device=device, dtype=dtype)
    return encoder.as_module(output=output, input_format=input_format)

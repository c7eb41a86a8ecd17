"""With runtime="auto", the runtime whose rows a file holds goes on with it.

The runtimes give equal rows to about 1e-6, but the rows of one file come from one of them: files
that were made before another was installed are neither made again nor mixed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.errors import PathEncoderError
from pathencoder.features.finished import ANEW, read_settings
from pathencoder.features.job import partial_path
from pathencoder.features.journal import settings_of
from pathencoder.features.provenance import Provenance, Settings
from pathencoder.files import Mismatch

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def with_runtime_of(file: Path, provenance: Provenance, settings: Settings) -> Provenance:
    """The provenance with the runtime of the rows that are there already.

    Args:
        file: The feature file, which need not exist.
        provenance: Of this run.
        settings: With the runtime that was asked for.

    Raises:
        Mismatch: The file is damaged.
    """
    if settings.overwrite or settings.runtime != "auto" or provenance.precision != "fp32":
        return provenance
    begun = read_settings(file) if file.exists() else settings_of(partial_path(file))
    if not begun or begun.get("precision") != "fp32" or "runtime" not in begun:
        return provenance
    return dataclasses.replace(provenance, runtime=str(begun["runtime"]))


def continued(encoder: Encoder, settings: Settings, provenance: Provenance, file: Path) -> Settings:
    """The settings that go on with a file.

    Raises:
        Mismatch: Its runtime cannot run here.
    """
    if settings.runtime != "auto" or provenance.precision != "fp32":
        return settings
    same = dataclasses.replace(settings, runtime=provenance.runtime)
    try:
        encoder.runtime_used(same.of_network())
    except PathEncoderError as error:
        raise Mismatch(
            f"{file} was begun with the runtime {provenance.runtime}, which cannot run here"
            f" ({error}). {ANEW}"
        ) from error
    return same

"""The images that an encoder was adapted to: a head that is fitted on them looks too good."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathencoder.errors import PathEncoderError
from pathencoder.files import whole_file
from pathencoder.pretrained import hub

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

FILE = "adapted_to.safetensors"  # `contents` uint8 [N, 16]: content hashes, as of heads/embed.py
_seen: weakref.WeakKeyDictionary[Any, frozenset[bytes]] = weakref.WeakKeyDictionary()


def remember(encoder: Encoder, contents: Iterable[bytes]) -> None:
    """Note the contents of the images that an encoder in memory was adapted to."""
    _seen[encoder] = seen_by(encoder) | frozenset(content for content in contents if content)


def seen_by(encoder: Encoder) -> frozenset[bytes]:
    """The contents of the images that an encoder was adapted to; empty for others."""
    known = _seen.get(encoder)
    if known is None:
        known = _read(_file_of(encoder))
        _seen[encoder] = known
    return known


def notes(encoder: Encoder, contents: Sequence[bytes]) -> list[str]:
    """A note where images were used to adapt the encoder."""
    seen = seen_by(encoder)
    count = sum(content in seen for content in contents)
    if not count:
        return []
    return [
        f"the encoder was adapted to {count:,} of these images and has seen their labels: figures"
        " on them are too good, also on folds. Evaluate on other groups"
    ]


def write(folder: Path, encoder: Encoder) -> None:
    """Write the contents beside an encoder's files."""
    from safetensors.numpy import save

    found = sorted(seen_by(encoder))
    array = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)
    with whole_file(folder / FILE) as temporary:
        temporary.write_bytes(save({"contents": array}))


def _file_of(encoder: Encoder) -> Path | None:
    """The file beside the encoder's files, in a folder or a repository; None without one."""
    if encoder.folder is not None and (encoder.folder / FILE).is_file():
        return encoder.folder / FILE
    spec = encoder.spec
    if spec.repo is None or spec.base_model is None:  # adapted encoders name their parent
        return None
    try:
        return hub.Repository(spec.repo, spec.revision, hub.Access(), spec.name).file(FILE)
    except PathEncoderError:
        return None


def _read(file: Path | None) -> frozenset[bytes]:
    from safetensors.numpy import load_file

    if file is None:
        return frozenset()
    return frozenset(row.tobytes() for row in load_file(file)["contents"])

"""The positions of the tiles of a manifest's slides, for a training that reads slides directly."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from training.archive.pack.run import pack
from training.archive.pack.settings import Settings, positions_folder
from training.archive.store import read_manifest

log = logging.getLogger(__name__)

_POLL = 1.0  # seconds


def make_positions(manifest: Path, tile_px: int, mpp: float) -> Path:
    """Find the tissue of all slides, and list all their tiles; what was done before is kept.

    Several processes may call it at once: they share the work, and each returns when all is done.

    Args:
        manifest: The slides. Those that were fetched lie beside it.
        tile_px: Side of the tiles.
        mpp: Micrometres per pixel of the tiles.

    Returns:
        The folder, for `open_corpus`.

    Raises:
        ConfigError: The manifest is wrong, or none of its slides lies here.
        StoreError: The folder cannot be written.
    """
    out = positions_folder(manifest, tile_px, mpp)
    rows = read_manifest(manifest).rows
    settings = Settings(tiles=0, mpp=(mpp,), tile_px=tile_px, pixels=False)
    while True:
        found = pack(rows, out.absolute(), settings, slides=manifest.parent.absolute())
        if not found.left:
            break
        time.sleep(_POLL)
    for slide, reason in found.tables.failed:
        log.warning("%s: slide %s is left out: %s", manifest, slide, reason)
    if found.absent:
        log.warning("%s: %d slides do not lie here and are left out", manifest, len(found.absent))
    return out

"""How slides are packed: which tiles, at which scales, in which encoding."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from pathencoder.errors import ConfigError
from pathencoder.mpp import check_mpp
from pathencoder.slides.reader import RGB

Codec = Literal["jpeg", "webp"]
SUFFIXES: dict[str, str] = {"jpeg": ".jpg", "webp": ".webp"}
_BYTES_OF_PIXEL = 0.26  # of a tile of tissue, JPEG of quality 85 (facts of 7,848 tiles: 17 KB)
_BITS_WEBP = 0.8  # of that, at the same quality
MPP = 0.5  # micrometres per pixel, where none are set


@dataclass(frozen=True)
class Settings:
    """How slides are packed. All of it determines the bytes of the shards.

    Attributes:
        tiles: Of each slide at each scale; 0: all.
        mpp: Micrometres per pixel of the tiles: one scale or several.
        tile_px: Side of a tile.
        codec: How tiles are compressed.
        quality: Of the compression, 1 to 100.
        min_tissue: Share of a tile that must be tissue.
        shard_mb: Size of a shard, about, in MB.
        pixels: Write the tiles; otherwise their positions alone.
    """

    tiles: int = 500
    mpp: tuple[float, ...] = (MPP,)
    tile_px: int = 256
    codec: Codec = "jpeg"
    quality: int = 85
    min_tissue: float = 0.25
    shard_mb: float = 256
    pixels: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (
            ("tiles", 0, 10_000_000),
            ("tile_px", 16, 4096),
            ("quality", 1, 100),
            ("shard_mb", 0.01, 100_000),
            ("min_tissue", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                given = getattr(self, name)
                raise ConfigError(f"--{name.replace('_', '-')} {given}: from {low} to {high}")
        if not self.mpp or len(set(map(in_nm, self.mpp))) < len(self.mpp):
            raise ConfigError("--mpp: at least one scale, and each once")
        for mpp in self.mpp:
            check_mpp(mpp)

    def record(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        return {**dataclasses.asdict(self), "mpp": list(self.mpp)}

    @property
    def suffix(self) -> str:
        """Of the names of the tiles."""
        return SUFFIXES[self.codec]

    @property
    def tile_bytes(self) -> float:
        """A tile's size, about."""
        factor = _BITS_WEBP if self.codec == "webp" else 1.0
        return self.tile_px**2 * _BYTES_OF_PIXEL * factor

    @property
    def shard_bytes(self) -> int:
        """The size at which a shard ends."""
        return round(self.shard_mb * 1e6)


def in_nm(mpp: float) -> int:
    """A scale in nanometres per pixel, as the names of tiles have it."""
    return round(1000 * mpp)


def positions_folder(manifest: Path, tile_px: int, mpp: float) -> Path:
    """Where the positions of a manifest's tiles are kept: NAME.tiles/224px-500nm beside it.

    Args:
        manifest: NAME.parquet.
        tile_px: Side of the tiles.
        mpp: Micrometres per pixel of the tiles.
    """
    return manifest.with_suffix(".tiles") / f"{tile_px}px-{in_nm(mpp)}nm"


def encoded(tile: RGB, settings: Settings) -> bytes:
    """A tile compressed.

    Args:
        tile: uint8 [h, w, 3].
        settings: The codec and its quality.
    """
    out = io.BytesIO()
    image = Image.fromarray(tile)
    if settings.codec == "webp":
        image.save(out, "WEBP", quality=settings.quality, method=4)
    else:
        image.save(out, "JPEG", quality=settings.quality)
    return out.getvalue()

"""Slides of any size for benchmarks: a rectangle of real tissue on glass, written in seconds.

The tissue is ../shared's CMU-1-Small-Region.svs where it is there (H&E), else scikit-image's
immunohistochemistry, flipped and rotated. Few different JPEG tiles are encoded, and repeated: the
pixels say nothing about statistics, the work of reading them is that of a real slide.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.paths import SHARED
from tests.support.tiff_headers import page, tiff

RGB = NDArray[np.uint8]
_JPEG = 256  # side of a tile in the file
_QUALITY = 80
_DENSE, _SIDE = (1000, 770), 512  # a square of the real slide with hardly any glass
_REAL = SHARED / "data/slides/aperio/CMU-1-Small-Region.svs"


def write_slide(path: Path, tiles: int, *, tile_px: int = 224, mpp: float = 0.5) -> Path:
    """A pyramidal JPEG TIFF that OpenSlide reads.

    Args:
        path: The file, ending in .tiff.
        tiles: About how many tiles of `tile_px` cover the tissue, when read at level 0.
        tile_px: The side of these tiles.
        mpp: Micrometres per level-0 pixel.
    """
    images = _images()
    across = max(2, round(math.sqrt(tiles) * tile_px / _JPEG))
    down = max(2, round(tiles * (tile_px / _JPEG) ** 2 / across))
    plan = _plan(across, down, len(images) - 4)
    small = [_reduced(image) for image in images]
    quarter = np.concatenate([np.concatenate([small[k] for k in row], 1) for row in plan])
    encoded = [_encode(image) for image in images]
    height, width = plan.shape[0] * _JPEG, plan.shape[1] * _JPEG
    data = bytearray(b"II*\0\0\0\0\0")
    pages = [_page(data, (height, width), mpp, (encoded[k] for k in plan.ravel()), reduced=False)]
    for level in (quarter, _reduced(quarter)):
        scale = mpp * height / level.shape[0]
        pages.append(_page(data, level.shape[:2], scale, map(_encode, _cut(level)), reduced=True))
    path.write_bytes(tiff(*pages, front=data))
    return path


def _page(
    data: bytearray, size: tuple[int, ...], mpp: float, tiles: Iterable[bytes], *, reduced: bool
) -> dict[int, Any]:
    """Append encoded tiles to a file; the tags of their page."""
    places = []
    for tile in tiles:
        places.append((len(data), len(tile)))
        data += tile
    coded = {258: (8, 8, 8), 259: 7, 262: 6, 277: 3, 322: _JPEG, 323: _JPEG, 530: (2, 2)}
    found = page(size[1], size[0], resolution=1e4 / mpp, unit="centimeter") | coded
    offsets = {324: tuple(at for at, _ in places), 325: tuple(n for _, n in places)}
    return found | offsets | ({254: 1} if reduced else {})


def _plan(columns: int, rows: int, parts: int, border: int = 4) -> NDArray[np.int64]:
    """Which image each JPEG tile of the file is: tissue with a border of glass (images 0 to 3)."""
    rng = np.random.default_rng(0)
    plan = rng.integers(0, 4, (rows + 2 * border, columns + 2 * border))
    side = math.isqrt(parts // 4)
    ys, xs = np.mgrid[:rows, :columns]
    turned = rng.integers(0, 4, (rows // side + 1, columns // side + 1))[ys // side, xs // side]
    plan[border:-border, border:-border] = 4 + (turned * side + ys % side) * side + xs % side
    return plan


def _images() -> list[RGB]:
    """Four of glass, then the parts of four orientations of the tissue, row by row."""
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(243, 1.5, (4, _JPEG, _JPEG, 3)), 0, 255).astype(np.uint8)
    source = _tissue()
    side = min(source.shape[:2]) // _JPEG * _JPEG
    square = source[:side, :side]
    turned = [square, square[::-1], square[:, ::-1], square[::-1, ::-1]]
    return [*glass, *(part for image in turned for part in _cut(np.ascontiguousarray(image)))]


def _tissue() -> RGB:
    """A square that tissue fills."""
    if not _REAL.is_file():
        from skimage.data import immunohistochemistry

        return np.asarray(immunohistochemistry()[..., :3])
    import openslide

    with openslide.OpenSlide(str(_REAL)) as slide:
        left, top = _DENSE
        return np.asarray(slide.read_region((left, top), 0, (_SIDE, _SIDE)).convert("RGB"))


def _cut(image: RGB) -> Iterator[RGB]:
    """An image in JPEG tiles, row by row, white beyond its edges."""
    for y in range(0, image.shape[0], _JPEG):
        for x in range(0, image.shape[1], _JPEG):
            part = image[y : y + _JPEG, x : x + _JPEG]
            whole = np.full((_JPEG, _JPEG, 3), 243, np.uint8)
            whole[: part.shape[0], : part.shape[1]] = part
            yield whole


def _reduced(image: RGB) -> RGB:
    """An image at a quarter of its size."""
    whole = Image.fromarray(image)
    return np.asarray(whole.resize((whole.width // 4, whole.height // 4), Image.Resampling.BOX))


def _encode(image: RGB) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=_QUALITY, subsampling="4:2:0")
    return out.getvalue()

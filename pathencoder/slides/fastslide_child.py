"""The process in which fastslide reads one slide; it runs `main` and ends with its input.

Requests are five numbers (level, left, top, width, height, in pixels of the level). An answer is a
status, a length and that many bytes: JSON of the slide first, then pixels, or the text of an error.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, BinaryIO

REQUEST = struct.Struct("<5q")
ANSWER = struct.Struct("<?q")  # whether it worked, bytes that follow


def main() -> None:
    """Open the slide that the command line names, then answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints must not lie between the answers
    slide = _answer(answers, lambda: _open(sys.argv[1]))
    while slide is not None:
        request = sys.stdin.buffer.read(REQUEST.size)
        if len(request) < REQUEST.size:
            return
        level, left, top, width, height = REQUEST.unpack(request)
        _answer(answers, lambda place=(level, left, top, width, height): _read(slide, *place))


def _open(path: str) -> tuple[bytes, Any]:
    import fastslide

    slide = fastslide.FastSlide.from_file_path(path)
    (left, top), (width, height) = slide.bounds
    facts = {
        "version": fastslide.__version__,
        "format": slide.format,
        "sizes": [[int(side) for side in size] for size in slide.level_dimensions],
        "downsamples": [float(factor) for factor in slide.level_downsamples],
        "mpp": [float(side) for side in slide.mpp],
        "bounds": [int(number) for number in (left, top, width, height)],
        "samples": str(slide.dtype),
        "channels": int(slide.num_channels),
        "images": int(slide.num_images),
        "planes": int(slide.z_count) * int(slide.t_count),
        "power": str(dict(slide.properties).get("objective_magnification", "")),
    }
    return json.dumps(facts).encode(), slide


def _read(
    slide: Any, level: int, left: int, top: int, width: int, height: int
) -> tuple[bytes, Any]:
    region = slide.read_region((left, top), level, (width, height)).numpy()
    if region.shape != (height, width, 3) or region.dtype.name != "uint8":
        raise ValueError(f"pixels of shape {region.shape} and type {region.dtype}")
    return region.tobytes(), slide


def _answer(answers: BinaryIO, do: Any) -> Any:
    """Write the bytes that `do` gives, or its error; what else it gives is returned."""
    try:
        data, result = do()
        worked = True
    except Exception as error:
        data, result, worked = str(error).encode("utf-8", "replace"), None, False
    answers.write(ANSWER.pack(worked, len(data)))
    answers.write(data)
    answers.flush()
    return result

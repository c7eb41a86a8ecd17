"""TIFF files of tags alone, as small as they can be: their pages hold no pixels."""

import struct

UNIT = {"none": 1, "inch": 2, "centimeter": 3}


def page(width, height, *, tiled=False, resolution=None, unit=None, description=None, **tags):
    """The tags of one page: {tag: value}; a number, a text, or a float for a rational."""
    found = {256: width, 257: height}
    if tiled:
        found |= {322: 256, 323: 256}
    if resolution:
        found |= {282: float(resolution), 283: float(resolution)}
    if unit:
        found[296] = UNIT[unit]
    if description is not None:
        found[270] = description
    return found | {int(name.removeprefix("t")): value for name, value in tags.items()}


def tiff(*pages, order="<", big=False, sub_pages=(), front=b""):
    """The bytes of a TIFF with these pages; sub_pages lie in the SubIFDs of the first.

    `front` is how the file begins, with the data that tags point at; else an empty header.
    """
    offset, width = ("Q", 8) if big else ("I", 4)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    out = bytearray(mark + head + b"\0" * width)
    place = len(out) - width
    out += front[len(out) :]
    inner = [_write(out, p, order, offset, width)[0] for p in sub_pages]
    for number, tags in enumerate(pages):
        more = {330: tuple(inner)} if inner and not number else {}
        at, following = _write(out, tags | more, order, offset, width)
        struct.pack_into(order + offset, out, place, at)
        place = following
    return bytes(out)


def _write(out, tags, order, offset, width):
    entries = [_entry(out, tag, value, order, offset, width) for tag, value in sorted(tags.items())]
    at = len(out)
    out += struct.pack(order + ("Q" if width == 8 else "H"), len(entries)) + b"".join(entries)
    following = len(out)
    out += b"\0" * width
    return at, following


def _entry(out, tag, value, order, offset, width):
    if isinstance(value, str):
        kind, data, count = 2, value.encode() + b"\0", len(value.encode()) + 1
    elif isinstance(value, float):
        kind, data, count = 5, struct.pack(order + "II", round(value * 1000), 1000), 1
    else:
        values = value if isinstance(value, tuple) else (value,)
        kind, data, count = 4, struct.pack(f"{order}{len(values)}I", *values), len(values)
    if len(data) > width:
        place = len(out)
        out += data
        data = struct.pack(order + offset, place)
    return struct.pack(order + "HH" + offset, tag, kind, count) + data.ljust(width, b"\0")

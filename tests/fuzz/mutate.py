"""Damage to files, by their structure (tags, segments, chunks, headers, cells) and regardless."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from collections.abc import Callable

# Numbers at which readers fail: zeros, ends of ranges, sizes of images that no memory holds.
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    12,
    16,
    127,
    128,
    255,
    256,
    4096,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
TEXTS = (
    "",
    "nan",
    "inf",
    "-1",
    "0",
    "1e309",
    "0,25",
    "\0",
    "\ufeff",
    "\u00fc",
    "\ud7ff",
    "a" * 5000,
    "../x",
    "/dev/null",
    "true",
    '"',
)


def mutate(data: bytes, kind: str, rng: random.Random) -> bytes:
    """One to four kinds of damage to a file's bytes.

    Args:
        data: A valid file.
        kind: "tiff", "jpeg", "png", "tar", "csv", "json", "safetensors"; anything else is damaged
            as plain bytes.
        rng: Decides everything.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        own = STRUCTURED.get(kind)
        change = own if own is not None and rng.random() < 0.7 else rng.choice(PLAIN)
        try:
            data = change(data, rng)
        # what is left has lost its structure
        except (struct.error, IndexError, ValueError, StopIteration):
            data = rng.choice(PLAIN)(data, rng)
    return data


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change bits of a few bytes, mostly near the header."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        if out:
            end = len(out) if rng.random() < 0.5 else min(len(out), 256)
            out[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Remove the end."""
    return data[: rng.randrange(len(data) + 1)]


def hole(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a range with zeros."""
    start = rng.randrange(len(data) + 1)
    length = rng.choice((1, 16, 512, 4096))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def splice(data: bytes, rng: random.Random) -> bytes:
    """Repeat or remove a range."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:a] + data[b:] if rng.random() < 0.5 else data[:b] + data[a:b][:65536] + data[b:]


def tail(data: bytes, rng: random.Random) -> bytes:
    """Append bytes after the end."""
    return data + rng.randbytes(rng.choice((1, 100, 5000)))


def tiff(data: bytes, rng: random.Random) -> bytes:
    """Another tag, type, count or value in one entry of a classic TIFF, or a directory loop."""
    end = "<" if data[:2] == b"II" else ">"
    out, entries, links = bytearray(data), [], []
    at = struct.unpack_from(end + "I", data, 4)[0]
    while at and len(links) < 16:
        count = struct.unpack_from(end + "H", data, at)[0]
        entries += [at + 2 + 12 * i for i in range(count)]
        links.append(at + 2 + 12 * count)
        at = struct.unpack_from(end + "I", data, links[-1])[0]
    if rng.random() < 0.1:
        struct.pack_into(
            end + "I", out, rng.choice(links), rng.choice([8, *entries, len(data) - 2, *NUMBERS])
        )
        return bytes(out)
    place = rng.choice(entries)
    tags = (
        254,
        256,
        257,
        258,
        259,
        262,
        270,
        273,
        277,
        278,
        279,
        282,
        283,
        284,
        296,
        317,
        322,
        323,
        324,
        325,
        338,
        339,
        530,
    )
    field, form, values = rng.choice(
        (
            (0, "H", tags),
            (2, "H", range(20)),
            (4, "I", NUMBERS),
            (8, "I", NUMBERS),
            (8, "H", NUMBERS),
        )
    )
    struct.pack_into(
        end + form, out, place + field, rng.choice(values) & (0xFFFF if form == "H" else 0xFFFFFFFF)
    )
    return bytes(out)


def jpeg(data: bytes, rng: random.Random) -> bytes:
    """A segment changed, removed or duplicated, or the scan truncated before its end marker."""
    marks = [m.start() for m in re.finditer(rb"\xff[\xc0-\xfe]", data)]
    place = rng.choice(marks)
    length = struct.unpack_from(">H", data, place + 2)[0]
    what = rng.randrange(5)
    if what == 0:
        return (
            data[: place + 2] + struct.pack(">H", rng.choice(NUMBERS) & 0xFFFF) + data[place + 4 :]
        )
    if what == 1:
        return data[:place] + data[place + 2 + length :]
    if what == 2:
        return (
            data[: place + 2 + length]
            + data[place : place + 2 + length]
            + data[place + 2 + length :]
        )
    if what == 3:
        frame = next(m for m in marks if data[m + 1] in (0xC0, 0xC1, 0xC2))
        size = struct.pack(">HH", *(rng.choice(NUMBERS) & 0xFFFF for _ in range(2)))
        return data[: frame + 5] + size + data[frame + 9 :]
    return data[: rng.randrange(len(data) // 2, len(data))] + b"\xff\xd9"


def png(data: bytes, rng: random.Random) -> bytes:
    """A chunk changed under a valid checksum, removed, duplicated, moved or renamed."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    i = rng.randrange(len(chunks))
    name, body = chunks[i]
    what = rng.randrange(5)
    if what == 0:
        chunks[i] = (name, flip(body, rng))
    elif what == 1:
        del chunks[i]
    elif what == 2:
        chunks.insert(rng.randrange(len(chunks)), (name, body))
    elif what == 3:
        chunks[i] = (
            rng.choice(
                (b"IDAT", b"PLTE", b"tRNS", b"pHYs", b"acTL", b"iCCP", b"zTXt", b"gAMA", b"IEND")
            ),
            body,
        )
    else:
        header = bytearray(chunks[0][1])
        struct.pack_into(">I", header, rng.choice((0, 4)), rng.choice(NUMBERS))
        chunks[0] = (b"IHDR", bytes(header))
    return data[:8] + b"".join(
        struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks
    )


def tar(data: bytes, rng: random.Random) -> bytes:
    """A member's name, size, type or link changed under a valid checksum, or members swapped."""
    headers, at = [], 0
    while at + 512 <= len(data) and data[at] != 0:
        headers.append(at)
        at += 512 + -(-int(data[at + 124 : at + 135].strip(b"\0 ") or b"0", 8) // 512) * 512
    place = rng.choice(headers)
    header = bytearray(data[place : place + 512])
    what = rng.randrange(4)
    if what == 0:
        names = (
            b"../../x.png",
            b"/etc/x.png",
            b"a/b/c.png",
            b".hidden.png",
            b"",
            b"\xff\xfe.png",
            data[headers[0] : headers[0] + 100],
        )
        header[:100] = rng.choice(names)[:100].ljust(100, b"\0")
    elif what == 1:
        header[124:136] = rng.choice(
            (
                b"%011o\0" % rng.choice(NUMBERS),
                b"\x80" + rng.randbytes(11),
                b"-0000000001\0",
                b"xyz".ljust(12),
            )
        )
    elif what == 2:
        header[156:157] = rng.choice(
            (b"0", b"1", b"2", b"3", b"5", b"L", b"x", b"g", b"S", b"\xff")
        )
    else:
        header[157:257] = data[headers[0] : headers[0] + 100]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + bytes(header) + data[place + 512 :]


def csv(data: bytes, rng: random.Random) -> bytes:
    """A changed cell, a line removed or duplicated, other delimiters or encoding, an open quote."""
    text = data.decode("utf-8", "replace")
    lines = text.split("\n")
    i = rng.randrange(len(lines))
    what = rng.randrange(6)
    if what == 0:
        cells = lines[i].split(",")
        cells[rng.randrange(len(cells))] = rng.choice(TEXTS)
        lines[i] = ",".join(cells)
    elif what == 1:
        del lines[i]
    elif what == 2:
        lines.insert(i, rng.choice(lines))
    elif what == 3:
        return text.replace(",", rng.choice(";\t|")).encode()
    elif what == 4:
        lines[i] = rng.choice(('"', ",,,,", '"a""b', "\x00", "\x1a")) + lines[i]
    else:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32", "latin-1")), "replace")
    return "\n".join(lines).encode("utf-8", "replace")


def jsons(data: bytes, rng: random.Random) -> bytes:
    """One value of a JSON document replaced by another type, removed, or renamed."""
    document = json.loads(data)
    holder = document
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        if isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.7:
            holder = holder[key]
            continue
        break
    what = rng.randrange(3)
    if what == 0 and isinstance(holder, dict):
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)
    else:
        holder[key] = rng.choice((None, True, -1, 0, 1e308, [], {}, [[1]], 10**12, *TEXTS))
    return json.dumps(document).encode()


def safetensors(data: bytes, rng: random.Random) -> bytes:
    """The JSON header changed under a valid length, or the length itself changed."""
    length = struct.unpack_from("<Q", data)[0]
    if rng.random() < 0.2:
        return struct.pack("<Q", rng.choice((*NUMBERS, 2**63, 2**64 - 1))) + data[8:]
    header = jsons(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


Change = Callable[[bytes, random.Random], bytes]
PLAIN: tuple[Change, ...] = (flip, flip, cut, hole, splice, tail)
STRUCTURED: dict[str, Change] = {
    "tiff": tiff,
    "jpeg": jpeg,
    "png": png,
    "tar": tar,
    "csv": csv,
    "json": jsons,
    "safetensors": safetensors,
}

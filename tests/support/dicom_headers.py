"""DICOM files of a header and one frame, as small as they can be."""

import struct

JPEG = "1.2.840.10008.1.2.4.50"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def element(tag, kind, value, *, explicit=True):
    """One element; a text is padded to an even length."""
    data = value.encode() if isinstance(value, str) else value
    data += b"\0" * (len(data) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack("<I", len(data)) + data
    if kind in ("SQ", "OB", "UN"):
        return head + kind.encode() + b"\0\0" + struct.pack("<I", len(data)) + data
    return head + kind.encode() + struct.pack("<H", len(data)) + data


def undefined(tag, kind, *items, explicit=True):
    """A sequence, or encapsulated pixels, of undefined length; each item's bytes as given."""
    body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(i)) + i for i in items)
    return _without_length(tag, kind, body, explicit)


def nested(tag, kind, inner, *, explicit=True):
    """A sequence of undefined length, of one item of undefined length."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner
    return _without_length(tag, kind, item + struct.pack("<HHI", 0xFFFE, 0xE00D, 0), explicit)


def _without_length(tag, kind, body, explicit):
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    head += kind.encode() + b"\0\0" if explicit else b""
    return head + b"\xff" * 4 + body + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def dicom(
    series="1.2.3",
    *,
    kind="VOLUME",
    derived="NONE",
    colours="RGB",
    frame=b"",
    syntax=JPEG,
    size=(0, 0),
    tile=0,
    frames=0,
    part=None,
):
    """The bytes of a file with sequences before its series, and its frame after an offset table.

    `part` is (ConcatenationUID, number, of how many).
    """
    explicit = syntax != IMPLICIT
    meta = element(0x00020010, "UI", syntax)

    def add(*args):
        return element(*args, explicit=explicit)

    body = add(0x00080008, "CS", f"ORIGINAL\\PRIMARY\\{kind}\\{derived}")
    body += nested(0x00081115, "SQ", add(0x0020000E, "UI", "9.9.9"), explicit=explicit)
    body += undefined(0x00081140, "SQ", add(0x00080050, "SH", "x"), explicit=explicit)
    body += add(0x0020000E, "UI", series)
    if part:
        body += add(0x00209161, "UI", part[0])
        body += b"".join(
            add(0x00209162 + i, "US", struct.pack("<H", number))
            for i, number in enumerate(part[1:])
        )
    if frames:
        body += add(0x00209311, "CS", "TILED_FULL")
    body += add(0x00280004, "CS", colours)
    if frames:
        body += add(0x00280008, "IS", str(frames))
        body += add(0x00280010, "US", struct.pack("<H", tile))
        body += add(0x00280011, "US", struct.pack("<H", tile))
    if size[0]:
        body += add(0x00480006, "UL", struct.pack("<I", size[0]))
        body += add(0x00480007, "UL", struct.pack("<I", size[1]))
    pixels = undefined(0x7FE00010, "OB", b"", frame) if explicit else add(0x7FE00010, "OW", b"12")
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", b"\0" * 4) + meta + body + pixels

"""Tars and tables of very small tiles: tile i is of one grey, 10 * i."""

import io
import tarfile

import numpy as np
from PIL import Image


def tile(value):
    """A PNG of 8 px, all of one value."""
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 10 * value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_tar(path, members, **options):
    """Write a tar of members: (name, bytes), or a TarInfo (a folder, a link)."""
    with tarfile.open(path, "w", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, target, kind):
    """A link inside a tar; kind: tarfile.LNKTYPE or SYMTYPE."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def folder(name):
    """A folder inside a tar."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def write_table(path, text):
    """Text with lines of words as a CSV; "-" is an empty value."""
    lines = [line.split() for line in text.strip().splitlines()]
    path.write_text(
        "".join(",".join("" if word == "-" else word for word in line) + "\n" for line in lines)
    )
    return path


def tiles_of(corpus):
    """Key -> the number of the tile that is read under it."""
    return {corpus.tiles.key(i): int(corpus.read(i)[0, 0, 0]) // 10 for i in range(len(corpus))}

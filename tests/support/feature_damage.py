"""Damage to feature files, as disks and interrupted copies make it."""

import h5py


def damage_rows(file):
    """Change one byte of the rows of an .h5 file."""
    with h5py.File(file) as opened:
        start = opened["features"].id.get_offset()
    data = bytearray(file.read_bytes())
    data[start + 3] ^= 1
    file.write_bytes(bytes(data))

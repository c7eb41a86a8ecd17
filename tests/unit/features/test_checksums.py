"""A damaged feature file is refused before HDF5 reads it; a whole one opens in plain h5py."""

import h5py
import numpy as np
import pytest

from pathencoder.errors import StoreError
from pathencoder.features import checksums


def write(path, rows):
    with h5py.File(path, "w", libver=("v108", "v108"), userblock_size=checksums.BLOCK) as file:
        data = file.create_dataset("features", data=rows)
        file.attrs["recipe"] = "{}" * 200
        start, size = data.id.get_offset() or checksums.BLOCK, data.id.get_storage_size()
    checksums.write(path, start, start + size)
    return path


@pytest.mark.parametrize("shape", [(0, 5), (7, 5)])
def test_a_whole_file_passes_and_is_plain_hdf5(tmp_path, shape):
    rows = np.random.default_rng(0).random(shape, dtype=np.float32)
    path = write(tmp_path / "x.h5", rows)
    checksums.check(path, rows=True)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["features"][:], rows)


def test_every_kind_of_damage_is_noticed(tmp_path):
    path = write(tmp_path / "x.h5", np.ones((7, 5), np.float32))
    whole = path.read_bytes()
    for at in range(checksums.BLOCK, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="not what was written"):
            checksums.check(path, rows=True)
    for data in (whole[:-1], whole + b"x"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="were written"):
            checksums.check(path, rows=False)


def test_damaged_rows_are_noticed_where_all_are_read(tmp_path):
    path = write(tmp_path / "x.h5", np.full((7, 5), 0.25, np.float32))
    data = path.read_bytes()
    at = data.index(np.full(5, 0.25, np.float32).tobytes())
    path.write_bytes(data[:at] + b"\1" + data[at + 1 :])
    checksums.check(path, rows=False)
    with pytest.raises(ValueError, match="rows"):
        checksums.check(path, rows=True)


def test_files_of_others_are_taken_as_they_are(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.ones((2, 3))
    checksums.check(tmp_path / "x.h5", rows=True)


def test_read_features_refuses_what_was_damaged(tmp_path):
    from pathencoder import read_features

    path = write(tmp_path / "x.h5", np.ones((7, 5), np.float32))
    assert read_features(path).rows.shape == (7, 5)
    data = bytearray(path.read_bytes())
    data[-3] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=r"x\.h5"):
        read_features(path)

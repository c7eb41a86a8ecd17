"""Feature files.

Written whole or not at all, readable by the tools whose layout they have, refused where damaged.
"""

import contextlib
import dataclasses
import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from every_layout import LAYOUTS

import pathencoder
from pathencoder.errors import StoreError
from pathencoder.features import layouts, store
from pathencoder.features.finished import read_facts, read_parts, read_settings, slide_facts
from pathencoder.features.identity import SlideIdentity, Stamp, Stat
from pathencoder.features.layouts import Place
from pathencoder.features.provenance import Provenance
from pathencoder.features.store import Content, Failure, read_features
from pathencoder.features.writer import write_features
from pathencoder.files import Mismatch, make_folder, storing, whole_file

PROVENANCE = Provenance(
    encoder="small",
    revision="abc",
    sha256="123",
    output="embedding",
    transform="whole to 64 px",
    mpp=None,
    target_mpp=0.5,
    overlap_px=8,
)

SLIDE = SlideIdentity("/data/slide.svs", Stat(99, 2**62, 7), "ab" * 16)


def place(count=5, mpp=0.25):
    side = 224 * 0.5 / mpp
    coords = np.arange(2 * count, dtype=np.int64).reshape(count, 2) * round(side * 216 / 224)
    return Place(
        slide="slide.svs",
        coords=coords,
        mpp=mpp,
        target_mpp=0.5,
        side=side,
        tile_px=224,
        overlap_px=8,
        size=(9000, 7000),
    )


def write(path, layout="trident", count=5, dim=7, failures=(), provenance=PROVENANCE):
    rows = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    content = Content(
        provenance,
        failures,
        {"slide": "slide.svs", **slide_facts(SLIDE)},
        place=place(count),
        layout=layout,
    )
    write_features(path, content, count, (dim,), lambda start, stop: rows[start:stop])
    return rows


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [5, 0])
def test_every_layout_reads_back(tmp_path, layout, count):
    path = layouts.path_of(tmp_path, "slide", layout)
    rows = write(path, layout, count, failures=[Failure("10,20", "damaged", "SlideError")])
    found = read_features(path)
    assert np.allclose(found.rows, rows, atol=1e-2 if layout == "stamp" else 0)
    assert found.rows.shape == (count, 7)
    assert found.coords.tolist() == place(count).coords.tolist()
    assert (found.unit, found.layout, found.keys) == ("px", layout, None)
    assert found.failures == [Failure("10,20", "damaged", "SlideError")]
    assert found.attributes["slide_mpp"] == 0.25
    assert found.attributes["pathencoder_version"] == pathencoder.__version__
    assert read_settings(path) == PROVENANCE.settings()
    facts = read_facts(path)
    assert (facts.count, facts.slide, facts.layout) == (count, SLIDE, layout)


def test_trident_reads_what_it_expects(tmp_path):
    """The datasets and attributes that TRIDENT's own reader of coordinates and features takes."""
    write(tmp_path / "slide.h5")
    with h5py.File(tmp_path / "slide.h5") as file:
        attributes, coords, features = (
            dict(file["coords"].attrs),
            file["coords"][:],
            file["features"][:],
        )
        encoder = file["features"].attrs["encoder"]
    assert (coords.dtype, features.dtype, encoder) == (np.int64, np.float32, "small")
    assert attributes["patch_size"] == 224
    assert attributes["patch_size_level0"] == 448
    assert attributes["level0_magnification"] / attributes["target_magnification"] == 2
    assert attributes["overlap"] == 8
    assert (attributes["level0_width"], attributes["level0_height"]) == (9000, 7000)
    assert attributes["name"] == "slide.svs"


def test_clam_reads_both_files(tmp_path):
    import torch

    rows = write(layouts.path_of(tmp_path, "slide", "clam"), "clam")
    assert np.array_equal(
        torch.load(tmp_path / "pt_files" / "slide.pt", weights_only=True).numpy(), rows
    )
    with h5py.File(tmp_path / "h5_files" / "slide.h5") as file:
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int32)
        assert not file["features"].attrs
        # what Whole_Slide_Bag_FP asks for
        assert dict(file["coords"].attrs) == {"patch_level": 0, "patch_size": 448}


def test_stamp_reads_micrometres_and_its_attributes(tmp_path):
    write(tmp_path / "slide.h5", "stamp")
    with h5py.File(tmp_path / "slide.h5") as file:
        assert (file["feats"].dtype, file["coords"].dtype) == (np.float16, np.float32)
        assert np.allclose(file["coords"][:], place().coords * 0.25)
        assert file.attrs["unit"] == "um"
        assert file.attrs["tile_size_um"] == 112
        assert file.attrs["tile_size_px"] == 224
        assert file.attrs["extractor"] == "small"
        assert file.attrs["feat_type"] == "tile"
        assert "stamp_version" not in file.attrs


@pytest.mark.parametrize("mpp", [0.25, 0.2527, 0.4978, 0.499, 0.5, 0.2488888888888889])
@pytest.mark.parametrize("origin", [(0, 0), (1237, 801)])
def test_stamp_finds_every_tile_in_its_cell_and_pixels_come_back(tmp_path, mpp, origin):
    side = 224 * 0.5 / mpp
    steps = np.stack(np.meshgrid(np.arange(260), np.arange(170)), axis=-1).reshape(-1, 2)
    coords = np.rint(np.asarray(origin) + steps * side).astype(np.int64)
    made = Place(
        slide="slide.svs",
        coords=coords,
        mpp=mpp,
        target_mpp=0.5,
        side=side,
        tile_px=224,
        overlap_px=0,
        size=(120_000, 80_000),
        origin=origin,
    )
    rows = np.zeros((len(coords), 1), np.float32)
    write_features(
        tmp_path / "s.h5",
        Content(PROVENANCE, (), {}, place=made, layout="stamp"),
        len(rows),
        (1,),
        lambda a, b: rows[a:b],
    )
    with h5py.File(tmp_path / "s.h5") as file:
        um = file["coords"][:]
    stride = np.diff(np.unique(um[:, 0])).min()  # STAMP's get_stride
    assert np.array_equal(np.rint((um - um.min(axis=0)) / stride), steps)
    assert np.array_equal(read_features(tmp_path / "s.h5").coords, coords)


def test_files_of_other_tools_are_read(tmp_path):
    with h5py.File(tmp_path / "stamp.h5", "w") as file:
        file["feats"] = np.ones((3, 4), np.float16)
        file["coords"] = np.ones((3, 2), np.float32) * 256
        file.attrs["unit"] = "um"
    found = read_features(tmp_path / "stamp.h5")
    assert (found.layout, found.unit, found.coords[0, 0]) == ("stamp", "um", 256)
    with h5py.File(tmp_path / "batched.h5", "w") as file:
        file["features"] = np.ones((1, 3, 4), np.float32)
        file["coords"] = np.ones((1, 3, 2), np.int32)
    found = read_features(tmp_path / "batched.h5")
    assert (found.rows.shape, found.coords.shape, found.layout) == ((3, 4), (3, 2), "clam")
    assert read_settings(tmp_path / "batched.h5") is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mpp_features_and_spec_of_every_layout(tmp_path, layout):
    own = dataclasses.replace(PROVENANCE, encoder="pathencoder-tiny")
    path = layouts.path_of(tmp_path, "s", layout)
    write(path, layout, provenance=own)
    found = read_features(path)
    assert found.features is found.rows
    assert found.mpp == 0.25
    assert (found.spec.name, found.spec.dim) == ("pathencoder-tiny", 768)
    assert (found.spec.revision, found.spec.sha256) == ("abc", "123")


def test_a_file_that_names_no_encoder_or_scale_has_none(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = np.zeros((2, 3), np.float32)
    found = read_features(tmp_path / "other.h5")
    assert (found.mpp, found.spec) == (None, None)


@pytest.mark.parametrize("name", ["features", "feats"])
def test_one_vector_of_a_slide_is_one_row(tmp_path, name):
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file[name] = np.arange(3, dtype=np.float32)
    assert read_features(tmp_path / "slide.h5").rows.tolist() == [[0.0, 1.0, 2.0]]


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "bad.h5").write_bytes(content)
    for read in (read_features, read_settings):
        with pytest.raises(StoreError, match=r"bad\.h5"):
            read(tmp_path / "bad.h5")


@pytest.mark.parametrize("kind", ["slide", "tiles"])
def test_damage_anywhere_is_named_or_harmless(tmp_path, kind):
    """No byte that is wrong makes a reader raise anything but StoreError."""
    path, random = tmp_path / "a.h5", np.random.default_rng(0)
    if kind == "slide":
        write(path, count=3)
    else:
        content = Content(
            PROVENANCE,
            (),
            {"source_path": "/a"},
            keys=["1.png"],
            stamps=[Stamp(Stat(1, 2, 3), b"x" * 16)],
        )
        write_features(
            path, content, 1, (4,), lambda start, stop: np.zeros((stop - start, 4), np.float32)
        )
    whole = path.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for at in random.integers(0, len(data), 12):
            data[at] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
        for read in (read_features, read_settings, read_facts, read_parts):
            with contextlib.suppress(StoreError):
                read(path)


def test_a_file_without_features_is_named(tmp_path):
    h5py.File(tmp_path / "other.h5", "w").close()
    with pytest.raises(StoreError, match="holds no features"):
        read_features(tmp_path / "other.h5")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    before = write(tmp_path / "slide.h5")

    def broken(start, stop):
        raise OSError(errno.ENOSPC, "No space left on device")

    content = Content(PROVENANCE, (), {}, place=place(5))
    with pytest.raises(StoreError, match="disk is full"):
        write_features(tmp_path / "slide.h5", content, 5, (7,), broken)
    assert np.array_equal(read_features(tmp_path / "slide.h5").rows, before)
    assert os.listdir(tmp_path) == ["slide.h5"]


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted():
        with whole_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "word"),
    [(errno.EROFS, "read-only"), (errno.EACCES, "no permission"), (errno.EIO, "check the disk")],
)
def test_disk_errors_say_what_to_do(tmp_path, number, word):
    with pytest.raises(StoreError, match=word), storing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(StoreError, match="choose another --out"):
        make_folder(tmp_path / "out" / "features")
    with pytest.raises(StoreError, match="choose another --out"):
        make_folder(tmp_path / "out")


def test_tiles_keep_keys_sizes_and_failures(tmp_path):
    rows = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    keys = ["a/1.png", "a/2.png", "ümlaut/3.png"]
    stamps = [Stamp(Stat(10 * n, 2**62 + n, n), bytes([n]) * 16) for n in range(1, 4)]
    content = Content(
        PROVENANCE,
        [Failure("bad.png", "not an image")],
        {"source_path": "/data/tiles"},
        keys=keys,
        stamps=stamps,
    )
    write_features(tmp_path / "tiles.h5", content, 3, (4,), lambda start, stop: rows[start:stop])
    found = read_features(tmp_path / "tiles.h5")
    assert (found.keys, found.coords) == (keys, None)
    parts = read_parts(tmp_path / "tiles.h5")
    assert parts.known == dict(zip(keys, stamps, strict=True))
    assert (parts.folder, parts.failures) == ("/data/tiles", found.failures)
    assert np.array_equal(parts.take([0, 2]), rows[[0, 2]])


def test_the_recipe_is_json_that_compares_equal(tmp_path):
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert json.loads(file.attrs["recipe"]) == PROVENANCE.settings()


def test_a_folder_and_a_file_that_is_missing_are_refused_in_words(tmp_path):
    with pytest.raises(StoreError, match="is a folder: give one of its"):
        read_features(tmp_path)
    with pytest.raises(StoreError, match="does not exist: give a file that"):
        read_features(tmp_path / "none.h5")


def test_a_feature_file_that_is_damaged_inside_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros((2, 3), np.float32)
    for error in (KeyError("object"), RuntimeError("wrong B-tree signature"), ValueError("x")):

        def broken(*_, error=error):
            raise error

        monkeypatch.setattr(store, "_read", broken)
        with pytest.raises(StoreError, match=r"x\.h5 cannot be read as a feature file"):
            read_features(path)


@pytest.mark.parametrize(("largest", "fits"), [(65519.0, True), (-65521.0, False), (1e9, False)])
def test_numbers_that_float16_does_not_hold_are_refused(tmp_path, largest, fits):
    rows = np.array([[1.0, largest, np.inf]], np.float32)
    path, content = tmp_path / "s.h5", Content(PROVENANCE, (), {}, place=place(1), layout="stamp")
    if fits:
        write_features(path, content, 1, (3,), lambda start, stop: rows)
        assert read_features(path).rows.tolist() == [[1.0, 65504.0, np.inf]]
        return
    with pytest.raises(Mismatch, match=r"largest number of its rows is .*--layout trident"):
        write_features(path, content, 1, (3,), lambda start, stop: rows)
    assert os.listdir(tmp_path) == []


def test_the_remains_of_a_killed_process_are_removed_by_the_next(tmp_path):
    for name in (".slide.h5.4711.incomplete", ".other.h5.4711.incomplete"):
        (tmp_path / name).write_bytes(b"half")
    write(tmp_path / "slide.h5")
    assert sorted(os.listdir(tmp_path)) == [".other.h5.4711.incomplete", "slide.h5"]


def test_coordinates_that_lie_on_no_grid_state_none(tmp_path):
    write(tmp_path / "grid.h5")
    assert read_features(tmp_path / "grid.h5").attributes["grid_stride_level0"] == 432
    apart = dataclasses.replace(place(2), coords=np.array([[0, 0], [100, 7]]))
    rows = np.zeros((2, 1), np.float32)
    write_features(
        tmp_path / "s.h5", Content(PROVENANCE, (), {}, place=apart), 2, (1,), lambda a, b: rows[a:b]
    )
    assert "grid_stride_level0" not in read_features(tmp_path / "s.h5").attributes


def test_two_threads_write_a_file_of_one_name_whole(tmp_path):
    both = threading.Barrier(2)

    def write(letter):
        with whole_file(tmp_path / "a.txt") as temporary:
            temporary.write_text(letter * 10)
            both.wait(timeout=10)
            return temporary

    with ThreadPoolExecutor(2) as pool:
        names = set(pool.map(write, "ab"))
    assert len(names) == 2
    assert (tmp_path / "a.txt").read_text() in ("a" * 10, "b" * 10)
    assert os.listdir(tmp_path) == ["a.txt"]

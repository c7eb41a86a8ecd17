"""The files of the layouts anndata and zarr, read by anndata itself; damage is found."""

import json

import anndata
import numpy as np
import pytest

import pathencoder
from pathencoder.errors import StoreError
from pathencoder.features import checksums, layouts
from pathencoder.features.finished import read_settings
from pathencoder.features.layouts import Place
from pathencoder.features.provenance import Provenance
from pathencoder.features.store import Content, Failure, read_features
from pathencoder.features.writer import write_features

pytestmark = pytest.mark.full

FORMS = ["anndata", "zarr"]
PROVENANCE = Provenance(
    encoder="small",
    revision=None,
    sha256="123",
    output="embedding",
    transform="whole to 64 px",
    mpp=None,
    target_mpp=0.5,
    tissue="found",
)


def write(folder, layout, count=5, keys=()):
    """A file of a slide, or of images where `keys` are given; returns its path and rows."""
    rows = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    steps = np.arange(2 * count).reshape(count, 2)
    place = Place(
        slide="a.svs",
        coords=np.rint(steps * 449.4).astype(np.int64),
        mpp=0.2492,
        target_mpp=0.5,
        side=449.4,
        tile_px=224,
        overlap_px=0,
        size=(90_000, 70_000),
    )
    content = Content(
        PROVENANCE,
        [Failure("3,4", "damaged", "SlideError")],
        {"slide": "a.svs"},
        place=None if keys else place,
        keys=keys,
        layout=layout,
    )
    path = layouts.path_of(folder, "a", layout)
    write_features(path, content, count, (3,), lambda start, stop: rows[start:stop])
    return path, rows


def opened(path):
    return anndata.read_zarr(path) if path.is_dir() else anndata.read_h5ad(path)


@pytest.mark.parametrize("layout", FORMS)
@pytest.mark.parametrize("count", [5, 0])
def test_anndata_reads_what_to_anndata_makes(tmp_path, layout, count):
    path, rows = write(tmp_path, layout, count)
    found, made = opened(path), pathencoder.to_anndata(path)
    assert np.array_equal(found.X, rows)
    assert found.X.dtype == np.float32
    assert found.obs_names.tolist() == made.obs_names.tolist()
    assert found.var_names.tolist() == made.var_names.tolist() == ["small_0", "small_1", "small_2"]
    assert found.obs.to_dict() == made.obs.to_dict()
    assert np.array_equal(found.obsm["spatial"], made.obsm["spatial"])
    theirs, ours = found.uns["pathencoder"], made.uns["pathencoder"]
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[k], ours[k]) for k in ours)
    assert (theirs["unit"], theirs["slide_mpp"]) == ("px", 0.2492)
    assert theirs["failed"].tolist() == [["3,4", "damaged", "SlideError"]]


@pytest.mark.parametrize("layout", FORMS)
def test_images_are_named_by_their_keys(tmp_path, layout):
    path, rows = write(tmp_path, layout, 2, keys=["a/1.png", "ü/2.png"])
    assert opened(path).obs_names.tolist() == ["a/1.png", "ü/2.png"]
    found = read_features(path)
    assert (found.keys, found.coords) == (["a/1.png", "ü/2.png"], None)
    assert np.array_equal(found.rows, rows)


def test_a_part_that_anndata_wrote_again_keeps_its_places_but_counts_for_no_run(tmp_path):
    path, rows = write(tmp_path, "anndata")
    part = opened(path)[[3, 1]].copy()
    part.write_h5ad(path)
    found = read_features(path)
    assert np.array_equal(found.rows, rows[[3, 1]])
    assert found.coords.tolist() == [[2696, 3146], [899, 1348]]
    assert found.mpp == 0.2492
    assert read_settings(path) is None


def test_files_of_others_are_read_by_name_and_sparse_ones_refused(tmp_path):
    import scipy.sparse

    values = np.eye(2, dtype=np.float32)
    made = anndata.AnnData(X=values)
    made.obsm["spatial"] = values  # of no known meaning
    made.write_h5ad(tmp_path / "other.h5ad")
    found = read_features(tmp_path / "other.h5ad")
    assert (found.keys, found.coords, found.unit) == (["0", "1"], None, "")
    anndata.AnnData(X=scipy.sparse.csr_matrix(values)).write_h5ad(tmp_path / "sparse.h5ad")
    with pytest.raises(StoreError, match="holds no features"):
        read_features(tmp_path / "sparse.h5ad")


@pytest.mark.parametrize("part", ["X/0.0", "obs/x/0", ".zattrs", "obs/.zattrs"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_damage_of_a_zarr_folder_is_named(tmp_path, part, how):
    path, _ = write(tmp_path, "zarr")
    assert checksums.marked(path)
    before = (path / part).read_bytes()
    if how == "missing" and part != ".zattrs":
        (path / part).unlink()
    elif part == ".zattrs":
        attributes = json.loads(before)
        (path / part).write_text(json.dumps({**attributes, "slide_mpp": 0.5}))
    else:
        (path / part).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"a\.zarr cannot be read"):
        read_features(path)
    if part != "X/0.0" or how == "missing":  # the rows are compared when they are read
        with pytest.raises(StoreError, match="is damaged"):
            read_settings(path)


def test_a_zarr_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path, rows = write(tmp_path, "zarr")

    def broken(start, stop):
        raise OSError(28, "No space left on device")

    content = Content(PROVENANCE, (), {}, layout="zarr", keys=["1"])
    with pytest.raises(StoreError, match="disk is full"):
        write_features(path, content, 1, (3,), broken)
    assert np.array_equal(read_features(path).rows, rows)
    write_features(path, content, 1, (3,), lambda start, stop: rows[start:stop])
    assert read_features(path).keys == ["1"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]

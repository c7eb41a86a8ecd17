"""`encode_slide(qc=True)`: columns beside the rows, in every layout, resumed and completed."""

import numpy as np
import pytest
import small_encoders
from small_slides import MemorySlide, section

import pathencoder
from pathencoder.encoder import Encoder
from pathencoder.errors import StoreError
from pathencoder.features.provenance import Settings
from pathencoder.features.slide import slide_to_file
from pathencoder.features.store import read_features
from pathencoder.slides.grid import Grid, read_tile
from pathencoder.slides.quality import COLUMNS, quality_of
from pathencoder.slides.tissue import find_tissue

LAYOUTS = ["trident", "clam", "stamp", "anndata", pytest.param("zarr", marks=pytest.mark.full)]
INSIDE = {"clam": "h5_files/s.h5", "anndata": "s.h5ad", "zarr": "s.zarr"}


@pytest.fixture
def slide(tmp_path, monkeypatch):
    def make(**options):
        made = MemorySlide(**{"pixels": section(), "path": tmp_path / "s.svs", **options})
        made.path.write_bytes(b"x" * 10)
        monkeypatch.setattr("pathencoder.features.slide.open_slide", lambda path: made)
        return made

    return make


@pytest.fixture
def forwards(monkeypatch):
    """Counts the tiles that go through a network."""
    seen, real = [], Encoder.results

    def counting(self, images, **options):
        for result in real(self, images, **options):
            seen.append(result.key)
            yield result

    monkeypatch.setattr(Encoder, "results", counting)
    return seen


def encode(made, file, **options):
    made_by = small_encoders.shared("vit")  # its numbers fit float16
    settings = Settings(**{"qc": True, **options})
    outcome = slide_to_file(made_by, made.path, file, settings)
    return outcome, read_features(outcome.file)


def expected(made, found):
    """The columns of these tiles, measured one by one."""
    side = float(found.attributes["tile_side_level0"])
    grid = Grid(found.coords, side, side, 64, 0.5, 0.5)
    values = [quality_of(read_tile(made, grid, *at), 0.5) for at in found.coords.tolist()]
    tissue = find_tissue(made, 0.5)
    share = [float(tissue.share(*np.array([[x], [y]]), side)[0, 0]) for x, y in found.coords]
    blur, fold = np.array(values, np.float32).T
    return {"qc_blur": blur, "qc_pen": np.zeros(len(blur)), "qc_fold": fold, "tissue": share}


def check(made, found):
    assert list(found.qc) == list(COLUMNS)
    for name, values in expected(made, found).items():
        assert found.qc[name].dtype == np.float32
        np.testing.assert_allclose(found.qc[name], values, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_quality_of_each_tile_beside_the_same_rows(slide, tmp_path, layout):
    made, inside = slide(), INSIDE.get(layout, "s.h5")
    _, plain = encode(made, tmp_path / "plain" / inside, layout=layout, qc=False)
    assert plain.qc == {}
    _, found = encode(made, tmp_path / "qc" / inside, layout=layout)
    assert np.array_equal(found.rows, plain.rows)
    assert np.array_equal(found.coords, plain.coords)
    assert found.attributes["recipe"] == plain.attributes["recipe"]
    check(made, found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_finished_file_is_completed_without_the_network(slide, tmp_path, layout, forwards):
    made, file = slide(broken=((128, 128, 190, 190),)), tmp_path / INSIDE.get(layout, "s.h5")
    _, plain = encode(made, file, layout=layout, qc=False)
    made.broken, count = (), len(forwards)
    outcome, found = encode(made, file, layout=layout)
    assert len(forwards) - count == len(found.rows) - len(plain.rows) == 1  # the broken tile
    assert outcome.new == 1
    assert any("the quality of the tiles was added" in note for note in outcome.notes)
    check(made, found)
    places = {tuple(at): row for at, row in zip(plain.coords.tolist(), plain.rows, strict=True)}
    for at, row in zip(found.coords.tolist(), found.rows, strict=True):
        assert np.array_equal(places.get(tuple(at), row), row)
    for qc in (True, False):
        outcome, again = encode(made, file, layout=layout, qc=qc)
        assert outcome.status == "before"
        assert list(again.qc) == list(COLUMNS)


def test_an_interrupted_run_keeps_what_it_measured(slide, tmp_path, monkeypatch):
    made, whole = slide(), tmp_path / "whole.h5"
    _, undisturbed = encode(made, whole)

    def stop(done, total):
        if done == total // 2:
            raise KeyboardInterrupt

    settings, encoder = Settings(qc=True, batch_size=4), small_encoders.shared("vit")
    with pytest.raises(KeyboardInterrupt):
        slide_to_file(encoder, made.path, tmp_path / "s.h5", settings, progress=stop)
    with pytest.raises(StoreError, match="qc: True there, None now"):
        encode(made, tmp_path / "s.h5", qc=False)
    outcome, found = encode(made, tmp_path / "s.h5")
    assert 0 < outcome.new < outcome.rows
    for name, values in undisturbed.qc.items():
        assert np.array_equal(found.qc[name], values, equal_nan=True)


def test_a_tile_that_cannot_be_read_again_has_unknown_quality(slide, tmp_path):
    made = slide()
    encode(made, tmp_path / "s.h5", qc=False)
    made.broken, made.broken_levels = ((128, 128, 190, 190),), (0,)
    _, found = encode(made, tmp_path / "s.h5")
    assert np.isnan(found.qc["qc_blur"]).sum() == np.isnan(found.qc["qc_fold"]).sum() == 1


def test_a_slide_without_tissue_has_empty_columns(slide, tmp_path):
    _, found = encode(slide(pixels=section(tissue=())), tmp_path / "s.h5")
    assert {name: len(values) for name, values in found.qc.items()} == dict.fromkeys(COLUMNS, 0)


def test_given_coordinates_have_the_share_of_the_tissue_that_is_found(slide, tmp_path):
    made = slide(pixels=section(tissue=((150, 150, 650, 520),)))
    _, first = encode(made, tmp_path / "first.h5")
    _, found = encode(made, tmp_path / "s.h5", coords=tmp_path / "first.h5")
    np.testing.assert_allclose(found.qc["tissue"], first.qc["tissue"], atol=1e-6)
    assert found.qc["tissue"].min() < 1


def test_python_gives_the_columns(slide, tmp_path):
    made = slide()
    encoder = small_encoders.shared("vit")
    found = pathencoder.encode_slide(made.path, encoder=encoder, qc=True)
    check(made, found)
    assert pathencoder.encode_slide(made.path, encoder=encoder).qc == {}


@pytest.mark.parametrize("layout", ["stamp", "anndata"])
def test_a_conversion_keeps_the_columns(slide, tmp_path, layout):
    _, found = encode(slide(), tmp_path / "s.h5")
    file = tmp_path / "out" / INSIDE.get(layout, "s.h5")
    pathencoder.convert_features(tmp_path / "s.h5", file, layout=layout)
    converted = read_features(file).qc
    assert list(converted) == list(COLUMNS)
    assert all(np.array_equal(converted[name], found.qc[name]) for name in COLUMNS)

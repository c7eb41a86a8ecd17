"""Slides to feature files: scale, resume inside a slide, damage, empty slides, three layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
import small_encoders
from every_layout import LAYOUTS
from paths import SHARED
from PIL import Image
from small_slides import section, write_tiff

from pathencoder.cli.main import run
from pathencoder.cli.own_files import is_own_picture
from pathencoder.errors import ConfigError, MissingMpp, SlideError, StoreError
from pathencoder.features.job import partial_path
from pathencoder.features.layouts import path_of
from pathencoder.features.provenance import Settings
from pathencoder.features.slide import slide_to_file
from pathencoder.features.store import read_features
from pathencoder.features.tiles import tiles_to_file
from pathencoder.slides.grid import Grid, plan_grid, read_tile
from pathencoder.slides.reader import open_slide
from pathencoder.slides.tissue import find_tissue

SLIDES = SHARED / "data/slides"


def encode(made, tmp_path, encoder=None, progress=None, **settings):
    settings = Settings(**settings)
    file = path_of(tmp_path / "out", "s", settings.layout)
    return slide_to_file(
        encoder or small_encoders.shared("cnn"),
        made.path,
        file,
        settings,
        **({"progress": progress} if progress else {}),
    )


def test_rows_are_the_embeddings_of_the_tiles_at_their_coordinates(slide, tmp_path):
    made = slide(properties={"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"})
    outcome = encode(made, tmp_path, min_tissue=0.9)
    found = read_features(outcome.file)
    assert (outcome.status, outcome.rows) == ("done", len(found.rows))
    assert found.attributes["patch_size_level0"] == 128
    assert {tuple(c) for c in found.coords.tolist()} == {
        (x, y) for x in range(128, 640, 128) for y in range(128, 512, 128)
    }
    encoder = small_encoders.shared("cnn")
    grid = Grid(found.coords, 128.0, 128.0, 64, 0.25, 0.5)
    tiles = [read_tile(made, grid, int(x), int(y)) for x, y in found.coords]
    assert np.array_equal(found.rows, encoder.encode(tiles, mpp=0.5, progress=False))


def test_overlap_and_target_scale_move_the_grid(slide, tmp_path):
    outcome = encode(slide(), tmp_path, overlap_px=32, target_mpp=1.0, min_tissue=0.9)
    found = read_features(outcome.file)
    steps = np.unique(np.diff(np.unique(found.coords[:, 0])))
    assert steps.tolist() == [64]  # (64 - 32) px at twice the slide's scale
    assert found.attributes["target_magnification"] == 10


def test_an_interrupted_slide_is_resumed(slide, tmp_path):
    made = slide()

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    whole = read_features(encode(made, tmp_path / "whole").file)
    with pytest.raises(KeyboardInterrupt):
        encode(made, tmp_path, progress=stop, batch_size=2)
    file = path_of(tmp_path / "out", "s", "trident")
    assert not file.exists()
    assert partial_path(file).exists()
    seen = []
    outcome = encode(made, tmp_path, progress=lambda done, total: seen.append(done))
    assert seen[0] == 5
    assert outcome.new == outcome.rows - 5
    again = read_features(file)
    assert np.array_equal(again.rows, whole.rows)
    assert np.array_equal(again.coords, whole.coords)
    assert not partial_path(file).exists()


def test_a_finished_slide_is_not_opened_again(slide, tmp_path):
    made = slide()
    first = encode(made, tmp_path)
    made.reads = 0
    second = encode(made, tmp_path)
    assert (second.status, second.rows, made.reads) == ("before", first.rows, 0)


def test_another_slide_or_other_settings_do_not_pass_for_done(slide, tmp_path):
    made = slide()
    encode(made, tmp_path)
    with pytest.raises(StoreError, match=r"target_mpp: 0\.5 there, 1\.0 now"):
        encode(made, tmp_path, target_mpp=1.0)
    with pytest.raises(StoreError, match="encoder: small-cnn there, small-vit now"):
        encode(made, tmp_path, encoder=small_encoders.shared("vit"))
    made.path.write_bytes(b"y" * 10)
    with pytest.raises(StoreError, match="before that file changed"):
        encode(made, tmp_path)
    assert encode(made, tmp_path, overwrite=True).status == "done"


def test_a_moved_slide_is_the_same_and_another_of_its_name_is_refused(slide, tmp_path):
    first = slide("x.svs")
    encode(first, tmp_path)
    moved = slide("y.svs")
    outcome = encode(moved, tmp_path)
    assert (outcome.status, outcome.notes) == (
        "before",
        [f"made from {first.path}, whose content is the same"],
    )
    moved.path.write_bytes(b"y" * 10)
    with pytest.raises(StoreError, match="nothing is overwritten") as refused:
        encode(moved, tmp_path)
    assert str(first.path) in str(refused.value)
    assert str(moved.path) in str(refused.value)


def test_tiles_and_slides_never_share_a_file(slide, tmp_path):
    made = slide()
    file = encode(made, tmp_path).file
    Image.fromarray(section()).save(tmp_path / "a.png")
    with pytest.raises(StoreError, match="holds a slide, and this input is tiles"):
        tiles_to_file(
            small_encoders.shared("cnn"),
            tmp_path,
            [("a.png", tmp_path / "a.png")],
            file,
            Settings(),
        )


def test_damaged_tiles_are_named_and_the_rest_is_embedded(slide, tmp_path):
    outcome = encode(slide(broken=((256, 256, 300, 300),)), tmp_path)
    found = read_features(outcome.file)
    assert [f.part for f in outcome.failures] == ["256,256"]
    assert outcome.failures == found.failures
    assert [256, 256] not in found.coords.tolist()
    assert [192, 256] in found.coords.tolist()
    assert len(found.rows) == len(found.coords) == outcome.rows
    again = encode(slide(), tmp_path)
    assert (again.status, again.failures) == ("before", found.failures)


def test_a_slide_of_which_nothing_can_be_read_leaves_no_file(slide, tmp_path):
    with pytest.raises(SlideError, match="no part of it"):
        encode(slide(broken=((0, 0, 5000, 5000),)), tmp_path)
    with pytest.raises(SlideError, match="none of its"):
        encode(
            slide(downsamples=(1.0, 4.0), broken=((0, 0, 5000, 5000),), broken_levels=(0,)),
            tmp_path,
        )
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_slide_without_tissue_gives_an_empty_file(slide, tmp_path, layout):
    outcome = encode(slide(pixels=section(tissue=())), tmp_path, layout=layout)
    assert outcome.status == "empty"
    found = read_features(outcome.file)
    assert (found.rows.shape, found.coords.shape) == ((0, 256), (0, 2))


def dark_field():
    image = np.random.default_rng(0).integers(0, 5, (768, 1024, 3)).astype(np.uint8)
    image[200:500, 300:700, 2] += 120
    return image


def test_a_slide_of_fluorescence_fails_and_leaves_no_file(slide, tmp_path):
    with pytest.raises(SlideError, match="dark background, as in fluorescence: not used, because"):
        encode(slide(pixels=dark_field()), tmp_path)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.full
def test_a_slide_of_fluorescence_fails_beside_another(tmp_path, capsys):
    write_tiff(tmp_path / "dark.tif", dark_field())
    write_tiff(tmp_path / "good.tif", section())
    command = [
        "encode",
        str(tmp_path / "dark.tif"),
        str(tmp_path / "good.tif"),
        "--as",
        "slides",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert run(command) == 3
    found = json.loads(capsys.readouterr().out)
    assert [i["status"] for i in found["inputs"]] == ["failed", "done"]
    assert "fluorescence" in (tmp_path / "out/failures.csv").read_text()


def test_unknown_scales_are_refused_and_given_ones_taken(slide, tmp_path):
    made = slide(properties={})
    with pytest.raises(MissingMpp, match="--mpp"):
        encode(made, tmp_path)
    found = read_features(encode(made, tmp_path, mpp=0.5).file)
    assert (found.attributes["slide_mpp"], found.attributes["slide_mpp_source"]) == (0.5, "given")
    without = small_encoders.encoder("cnn", mpp=None)
    with pytest.raises(ConfigError, match="--target-mpp"):
        encode(slide(), tmp_path / "b", encoder=without)
    assert encode(slide(), tmp_path / "b", encoder=without, target_mpp=0.5).rows > 0


@pytest.mark.parametrize("changes", [{"mpp": None}, {"mpp": None, "mpp_range": (0.25, 1.0)}, {}])
def test_tiles_that_were_read_to_scale_are_not_resized_again(slide, tmp_path, changes):
    """An encoder that enlarges tiles to 80 px and crops 64 gets the grid's tiles unchanged."""
    encoder = small_encoders.encoder("cnn", resize="shortest", resize_size=80, **changes)
    made = slide()
    found = read_features(
        encode(made, tmp_path, encoder=encoder, target_mpp=0.5, min_tissue=0.9).file
    )
    grid = Grid(found.coords, 64.0, 64.0, 64, 0.5, 0.5)
    tiles = [read_tile(made, grid, int(x), int(y)) for x, y in found.coords]
    as_they_are = small_encoders.encoder("cnn", mpp=0.5).encode(tiles, mpp=0.5, progress=False)
    assert np.array_equal(found.rows, as_they_are)


def test_what_the_reader_does_to_pixels_is_said(slide, tmp_path):
    note = "16 bits a sample: the upper 8 are read"
    assert encode(slide(notes=(note,)), tmp_path).notes[0] == note


def test_notes_on_scale_are_said_and_kept(slide, tmp_path):
    made = slide(properties={"openslide.mpp-x": "1.0", "openslide.mpp-y": "1.0"})
    outcome = encode(made, tmp_path)
    assert "enlarged 2 times" in " ".join(outcome.notes)
    assert encode(made, tmp_path).notes == outcome.notes
    assert "trained at 0.5" in " ".join(encode(slide(), tmp_path / "b", target_mpp=1.0).notes)


def test_the_precision_is_kept_and_another_is_refused(slide, tmp_path):
    made = slide()
    file = encode(made, tmp_path, precision="bf16").file
    said = read_features(file).attributes
    assert (said["precision"], said["runtime"], said["device"]) == ("bf16", "torch", "cpu")
    with pytest.raises(StoreError, match="precision: bf16 there, fp32 now"):
        encode(made, tmp_path)


def test_a_picture_is_drawn_also_of_a_slide_that_is_done(slide, tmp_path):
    made, picture = slide(), tmp_path / "out" / "pictures" / "s.jpg"
    file = path_of(tmp_path / "out", "s", "trident")
    settings = Settings()
    outcome = slide_to_file(
        small_encoders.shared("cnn"), made.path, file, settings, picture=picture
    )
    with Image.open(outcome.picture) as drawn:
        assert drawn.size[0] >= 1000
    picture.unlink()
    again = slide_to_file(small_encoders.shared("cnn"), made.path, file, settings, picture=picture)
    assert (again.status, again.picture) == ("before", picture)
    assert picture.exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "small"
    small_encoders.encoder("vit").save_pretrained(path)
    return path


@pytest.mark.full
@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_small_slides_through_the_command_line(tmp_path, folder, capsys, layout):
    write_tiff(tmp_path / "good.tiff", section(), mpp=0.25)
    write_tiff(tmp_path / "nompp.tiff", section(), mpp=None)
    (tmp_path / "text.svs").write_text("no slide")
    inputs = [str(tmp_path / n) for n in ("good.tiff", "nompp.tiff", "text.svs")]
    line = [
        "encode",
        *inputs,
        "--as",
        "slides",
        "--out",
        str(tmp_path / "out"),
        "--encoder",
        str(folder),
        "--layout",
        layout,
    ]
    line += ["--min-tissue", "0.9", "--json", "--pictures"]
    assert run(line) == 3
    statuses = {
        Path(one["input"]).name: one for one in json.loads(capsys.readouterr().out)["inputs"]
    }
    assert [one["status"] for one in statuses.values()] == ["done", "failed", "failed"]
    assert statuses["nompp.tiff"]["failures"][0]["error"] == "MissingMpp"
    found = read_features(statuses["good.tiff"]["file"])
    assert Path(statuses["good.tiff"]["picture"]) == tmp_path / "out" / "pictures" / "good.jpg"
    assert (tmp_path / "out" / "pictures" / "good.jpg").exists()
    assert np.isfinite(found.rows).all()
    for name in ("pca/good.jpg", "clusters/good.jpg"):
        assert (tmp_path / "out" / "pictures" / name).exists()
    assert is_own_picture(tmp_path / "out" / "pictures" / "pca" / "good.jpg")
    assert not is_own_picture(tmp_path / "out" / "pictures" / "pca" / "other.jpg")
    assert {tuple(c) for c in found.coords.tolist()} == {
        (x, y) for x in range(128, 640, 128) for y in range(128, 512, 128)
    }
    assert run([*line, "--mpp", "0.25", "--overwrite"]) == 3
    statuses = {
        Path(one["input"]).name: one["status"]
        for one in json.loads(capsys.readouterr().out)["inputs"]
    }
    assert statuses == {"good.tiff": "done", "nompp.tiff": "done", "text.svs": "failed"}


@pytest.mark.full
def test_settings_that_do_not_fit_one_input_fail_it_alone(tmp_path, folder, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.svs", "b.svs"):
        write_tiff(tmp_path / "in" / name, section(), mpp=0.25)
    Image.fromarray(section()).save(tmp_path / "in" / "label.png")
    line = [
        "encode",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--encoder",
        str(folder),
        "--target-mpp",
        "1",
        "--json",
    ]
    assert run(line) == 3
    found = json.loads(capsys.readouterr().out)["inputs"]
    assert {Path(one["input"]).name: one["status"] for one in found} == {
        "a.svs": "done",
        "b.svs": "done",
        "in": "failed",
    }
    assert "--target-mpp for tiles needs --mpp" in (tmp_path / "out" / "failures.csv").read_text()


@pytest.mark.full
@pytest.mark.skipif(not SLIDES.exists(), reason="needs the shared slides")
def test_one_section_in_three_formats_gives_the_same_tiles():
    names = (
        "aperio/CMU-1-Small-Region.svs",
        "generic/CMU-1-Small-Region_pyramid_mpp0.499.tiff",
        "dicom/CMU-1-Small-Region_multifile",
    )
    slides = [open_slide(SLIDES / name) for name in names]
    grids = [
        plan_grid(
            find_tissue(s, 0.499),
            s.bounds,
            mpp=s.mpp().value,
            target_mpp=2.0,
            tile_px=64,
            min_tissue=0.25,
        )
        for s in slides
    ]
    assert len(grids[0].coords) > 50
    for grid in grids[1:]:  # JPEG differs a little: a tile at the threshold may come or go
        here, there = ({tuple(c) for c in g.coords.tolist()} for g in (grids[0], grid))
        assert len(here & there) > 0.95 * len(here | there)
    # level 2 of the pyramid against level 0: the same place
    for x, y in grids[0].coords[::9].tolist():
        shown = read_tile(slides[0], grids[0], x, y).astype(int)
        off = {
            dx: np.abs(shown - read_tile(slides[1], grids[1], x + dx, y + dx)).mean()
            for dx in (-6, 0, 6)
        }
        assert min(off, key=off.get) == 0

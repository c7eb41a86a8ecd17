"""Conversions between layouts: what comes back, what is said, what is refused."""

import json

import h5py
import numpy as np
import pytest
from every_layout import LAYOUTS

import pathencoder
from pathencoder.errors import ConfigError, MissingExtra, StoreError
from pathencoder.features import layouts
from pathencoder.features.convert import Target, convert_file
from pathencoder.features.finished import check_provenance, read_facts, slide_facts
from pathencoder.features.identity import SlideIdentity, Stat
from pathencoder.features.layouts import Place
from pathencoder.features.provenance import Provenance
from pathencoder.features.store import Content, Failure, read_features
from pathencoder.features.writer import write_features
from pathencoder.files import Mismatch

SLIDE = SlideIdentity("/data/a.svs", Stat(99, 2**62, 7), "ab" * 16)
PROVENANCE = Provenance(
    encoder="small",
    revision="abc",
    sha256="123",
    output="embedding",
    transform="whole to 64 px",
    mpp=None,
    target_mpp=0.5,
    overlap_px=0,
    tissue="found",
)


def write(folder, layout="trident", count=30, scale=1.0, place=None, keys=()):
    """A file of a slide at an origin, with an odd scale; returns its path."""
    rows = scale * np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    side = 224 * 0.5 / 0.4978
    steps = np.stack([np.arange(count) % 7, np.arange(count) // 7], axis=1)
    made = Place(
        slide="a.svs",
        coords=np.rint(np.array([1237, 801]) + steps * side).astype(np.int64),
        mpp=0.4978,
        target_mpp=0.5,
        side=side,
        tile_px=224,
        overlap_px=0,
        size=(90_000, 70_000),
        origin=(1237, 801),
    )
    content = Content(
        PROVENANCE,
        [Failure("3,4", "damaged", "SlideError")],
        {"slide": "a.svs", "notes": "one\ntwo", "device": "cpu", **slide_facts(SLIDE)},
        place=None if keys else place or made,
        keys=keys,
        layout=layout,
    )
    path = layouts.path_of(folder, "a", layout)
    write_features(path, content, count, (4,), lambda start, stop: rows[start:stop])
    return path


def convert(source, folder, layout, **options):
    """(outcome, content of the new file)."""
    file = layouts.path_of(folder, "a", layout)
    outcome = convert_file(source, file, Target(layout=layout, **options))
    return outcome, read_features(file)


@pytest.mark.parametrize("count", [30, 1, 0])
@pytest.mark.parametrize("there", LAYOUTS)
@pytest.mark.parametrize("here", LAYOUTS)
def test_every_pair_of_layouts_keeps_all(tmp_path, here, there, count):
    source = write(tmp_path / "in", here, count)
    before = read_features(source)
    outcome, after = convert(source, tmp_path / "out", there)
    assert (outcome.status, outcome.rows) == ("done" if count else "empty", count)
    assert np.allclose(after.rows, before.rows, atol=0 if there != "stamp" else 2e-3)
    assert after.coords.tolist() == before.coords.tolist()
    assert (after.layout, after.unit, after.failures) == (there, "px", before.failures)
    own = {"layout", "recipe", "savetodir", "patch_size"}  # patch_size: of CLAM at level 0
    both = before.attributes.keys() & after.attributes.keys() - own
    for name in both:
        assert np.array_equal(after.attributes[name], before.attributes[name]), name
    kept = {"slide_mpp", "tile_side_level0", "grid_origin_level0", "level0_width", "slide_hash"}
    assert {*kept, "notes", "device", "sha256"} <= both
    facts = read_facts(layouts.path_of(tmp_path / "out", "a", there))
    assert (facts.slide, facts.count) == (SLIDE, count)


@pytest.mark.parametrize("there", LAYOUTS)
def test_a_converted_file_is_the_one_that_encode_would_write(tmp_path, there):
    direct = write(tmp_path / "direct", there)
    source = write(tmp_path / "in", "trident")
    convert(source, tmp_path / "out", there)
    file = layouts.path_of(tmp_path / "out", "a", there)
    check_provenance(file, PROVENANCE, there)
    if there == "zarr":
        return
    with h5py.File(direct) as one, h5py.File(file) as two:
        assert sorted(one) == sorted(two)
        for name in ("features", "feats", "coords", "X", "failed"):
            if name in one:
                assert one[name].dtype == two[name].dtype
                assert np.array_equal(one[name][:], two[name][:])
                ours, theirs = dict(one[name].attrs), dict(two[name].attrs)
                assert ours.pop("savetodir", "") != theirs.pop("savetodir", "none")
                assert ours == theirs
        added = two.attrs.keys() - one.attrs.keys()
        assert added == {"converted", "converted_by", "converted_from", "conversion_notes"}
        assert one.attrs.keys() <= two.attrs.keys()
    pt = tmp_path / "out/pt_files/a.pt"
    assert pt.exists() == (there == "clam")


def test_rows_that_were_rounded_are_said_and_not_taken_for_those_of_a_run(tmp_path):
    source = write(tmp_path / "in", "trident")
    outcome, small = convert(source, tmp_path / "stamp", "stamp")
    (note,) = outcome.notes
    assert note.startswith("the rows are rounded to float16, by 0.000")
    outcome, back = convert(tmp_path / "stamp/a.h5", tmp_path / "back", "trident")
    assert outcome.notes == ["the rows are those of the layout stamp, rounded to float16"]
    assert back.attributes["conversion_notes"] == outcome.notes[0]
    assert np.array_equal(back.rows, small.rows)
    with pytest.raises(Mismatch, match="rounded: float16 there, None now"):
        check_provenance(tmp_path / "back/a.h5", PROVENANCE, "trident")
    convert(tmp_path / "back/a.h5", tmp_path / "again", "stamp")
    check_provenance(tmp_path / "again/a.h5", PROVENANCE, "stamp")


def test_it_resumes_and_overwrites_nothing_else(tmp_path):
    source = write(tmp_path / "in", "trident")
    assert convert(source, tmp_path / "out", "stamp")[0].status == "done"
    file = tmp_path / "out/a.h5"
    first = file.read_bytes()
    outcome, _ = convert(source, tmp_path / "out", "stamp")
    assert (outcome.status, outcome.new, len(outcome.notes)) == ("before", 0, 1)
    assert file.read_bytes() == first
    source.rename(tmp_path / "in/b.h5")  # the content decides
    outcome = convert_file(tmp_path / "in/b.h5", file, Target(layout="stamp"))
    assert outcome.status == "before"
    for target in (Target(layout="trident"), Target(layout="stamp", mpp=0.4978)):
        with pytest.raises(Mismatch, match="was not converted from"):
            convert_file(tmp_path / "in/b.h5", file, target)
    changed = write(tmp_path / "in", "trident", scale=2.0)
    with pytest.raises(Mismatch, match="nothing is overwritten"):
        convert(changed, tmp_path / "out", "stamp")
    assert file.read_bytes() == first
    assert convert(changed, tmp_path / "out", "stamp", overwrite=True)[0].status == "done"
    with pytest.raises(Mismatch, match="is the input itself"):
        convert_file(changed, changed, Target(layout="stamp", overwrite=True))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.h5"]


def test_a_clam_file_without_its_tensor_is_made_again(tmp_path):
    source = write(tmp_path / "in", "trident")
    convert(source, tmp_path / "out", "clam")
    (tmp_path / "out/pt_files/a.pt").unlink()
    assert convert(source, tmp_path / "out", "clam")[0].status == "done"
    assert (tmp_path / "out/pt_files/a.pt").exists()


def test_a_tensor_of_another_program_is_kept(tmp_path):
    source, tensor = write(tmp_path / "in", "trident"), tmp_path / "out/pt_files/a.pt"
    tensor.parent.mkdir(parents=True)
    tensor.write_bytes(b"of CLAM")
    with pytest.raises(Mismatch, match=r"a\.pt exists without .*a\.h5: nothing is overwritten"):
        convert(source, tmp_path / "out", "clam")
    assert tensor.read_bytes() == b"of CLAM"
    assert convert(source, tmp_path / "out", "clam", overwrite=True)[0].status == "done"
    assert tensor.read_bytes() != b"of CLAM"


def test_the_tensor_of_clam_is_written_last(tmp_path, monkeypatch):
    source = write(tmp_path / "in", "trident")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pathencoder.features.writer._write_tensor", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out", "clam")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["h5_files"]
    assert convert(source, tmp_path / "out", "clam")[0].status == "done"
    assert (tmp_path / "out/pt_files/a.pt").exists()


def test_what_a_layout_cannot_hold_is_refused(tmp_path):
    with pytest.raises(Mismatch, match="largest number of its rows"):
        convert(write(tmp_path / "big", scale=1e6), tmp_path / "out", "stamp")
    images = write(tmp_path / "images", count=2, keys=["a.png", "b.png"])
    for layout in ("trident", "clam", "stamp"):
        with pytest.raises(Mismatch, match="holds no coordinates"):
            convert(images, tmp_path / "out", layout)
    outcome, found = convert(images, tmp_path / "out", "anndata")
    assert found.keys == ["a.png", "b.png"]
    assert outcome.notes == ["the sizes, times and hashes of the images are not kept"]
    apart = Place(
        slide="a.svs",
        coords=np.array([[0, 0], [100, 7], [499, 3]]),
        mpp=0.5,
        target_mpp=0.5,
        side=224,
        tile_px=224,
        overlap_px=0,
        size=None,
    )
    given = write(tmp_path / "given", count=3, place=apart)
    with pytest.raises(Mismatch, match="on no regular grid of 224 level-0 pixels"):
        convert(given, tmp_path / "out", "stamp")
    assert convert(given, tmp_path / "clam", "clam")[1].coords.tolist() == apart.coords.tolist()
    (tmp_path / "bad.h5").write_bytes(b"bad")
    with pytest.raises(Mismatch, match="cannot be read"):
        convert(tmp_path / "bad.h5", tmp_path / "out", "clam")


def trident_file(path, step=512):
    """As TRIDENT writes one; attributes in conventions of its save_h5."""
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((4, 3), np.float32)
        file["features"].attrs.update(name="s1", savetodir="/x", encoder="uni_v1")
        file["coords"] = np.array([[5, 9], [5 + step, 9], [5, 9 + step], [5 + 7 * step, 9]])
        file["coords"].attrs.update(
            patch_size=256,
            patch_size_level0=512,
            level0_magnification=40,
            target_magnification=20,
            overlap=0,
            name="s1",
            savetodir="/x",
            level0_width=9000,
            level0_height=7000,
        )
    return path


def test_a_file_of_trident_becomes_one_of_stamp_and_of_clam(tmp_path):
    source = trident_file(tmp_path / "s1.h5")
    outcome, found = convert(source, tmp_path / "stamp", "stamp")
    assert "0.25 um per pixel, from level0_magnification" in outcome.notes
    assert "another program computed the rows: how is not recorded" in outcome.notes
    with h5py.File(tmp_path / "stamp/a.h5") as file:
        assert (file["feats"].dtype, file["coords"].dtype) == (np.float16, np.float32)
        assert file["coords"][:].tolist()[:2] == [[1.25, 2.25], [129.25, 2.25]]
        attributes = dict(file.attrs)
    expected = {"unit": "um", "tile_size_um": 128.0, "tile_size_px": 256, "feat_type": "tile"}
    assert expected.items() <= attributes.items()
    assert (attributes["extractor"], attributes["slide"]) == ("uni_v1", "s1")
    assert "stamp_version" not in attributes
    assert found.coords.tolist() == read_features(source).coords.tolist()
    assert not {"recipe", "created", "pathencoder_version"} & attributes.keys()
    _, clam = convert(source, tmp_path / "clam", "clam")
    with h5py.File(tmp_path / "clam/h5_files/a.h5") as file:
        assert dict(file["coords"].attrs) == {"patch_level": 0, "patch_size": 512}
        assert (file["coords"].dtype, file["features"].dtype) == (np.int32, np.float32)
    assert clam.mpp == 0.25
    with pytest.raises(Mismatch, match=r"states 0\.25 um per pixel, and --mpp"):
        convert(source, tmp_path / "o", "clam", mpp=0.5)


def test_files_that_do_not_say_enough_ask_for_it(tmp_path):
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        file["features"] = np.ones((3, 2), np.float32)
        file["coords"] = np.array([[0, 0], [256, 0], [0, 256]], np.int32)
    source = tmp_path / "clam.h5"
    with pytest.raises(Mismatch, match=r"micrometres per pixel of the slide.*--mpp"):
        convert(source, tmp_path / "o", "trident")
    with pytest.raises(Mismatch, match=r"side of a tile.*--tile-side"):
        convert(source, tmp_path / "o", "trident", mpp=0.5)
    outcome, _ = convert(source, tmp_path / "o", "trident", mpp=0.5, tile_side=256)
    assert "the size of the slide is not known" in outcome.notes
    with h5py.File(tmp_path / "o/a.h5") as file:
        attributes = dict(file["coords"].attrs)
    assert (attributes["patch_size"], attributes["patch_size_level0"]) == (256, 256)
    assert attributes["level0_magnification"] == attributes["target_magnification"] == 20
    assert "level0_width" not in attributes
    outcome, found = convert(source, tmp_path / "a", "anndata")
    assert (found.coords.tolist()[1], found.mpp) == ([256, 0], None)
    outcome, _ = convert(source, tmp_path / "c", "clam")
    assert "patch_size is not written" in " ".join(outcome.notes)
    with h5py.File(tmp_path / "stamp.h5", "w") as file:
        file["feats"] = np.ones((2, 2), np.float16)
        file["coords"] = np.array([[0, 0], [256, 512]], np.float32)
        file.attrs.update(unit="um", tile_size_um=256.0, tile_size_px=224, extractor="uni")
    with pytest.raises(Mismatch, match="in micrometres and not the slide's"):
        convert(tmp_path / "stamp.h5", tmp_path / "s", "clam")
    _, found = convert(tmp_path / "stamp.h5", tmp_path / "s", "trident", mpp=0.5)
    assert found.coords.tolist() == [[0, 0], [512, 1024]]
    kept = ("patch_size", "patch_size_level0", "encoder")
    assert [found.attributes[k] for k in kept] == [224, 512, "uni"]


def test_python_names_the_file_by_its_layout(tmp_path):
    source = write(tmp_path / "in")
    found = pathencoder.convert_features(source, tmp_path / "x.h5ad", layout="anndata")
    assert found.layout == "anndata"
    assert json.loads(found.attributes["converted_from"])["path"] == str(source)
    with pytest.raises(ConfigError, match=r"end it in \.h5ad"):
        pathencoder.convert_features(source, tmp_path / "x.h5", layout="anndata")
    with pytest.raises(ConfigError, match="h5_files"):
        pathencoder.convert_features(source, tmp_path / "x.h5", layout="clam")
    with pytest.raises(StoreError, match="does not exist"):
        pathencoder.convert_features(tmp_path / "no.h5", tmp_path / "x.h5", layout="trident")


def test_zarr_that_is_not_installed_is_said_before_any_work(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(MissingExtra, match=r"pathencoder\[zarr\]"):
        Target(layout="zarr")


@pytest.mark.parametrize("side", ["224", True, float("nan"), 0, [224]])
def test_a_side_is_one_number(tmp_path, side):
    with pytest.raises(ConfigError, match=r"tile_side=.*a number of pixels above zero"):
        pathencoder.convert_features("a.h5", "b.h5", layout="trident", tile_side=side)


def test_paths_are_checked_and_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home")
    for source, out, name in ((None, "b.h5", "source"), ("~/a.h5", 3, "out")):
        with pytest.raises(ConfigError, match=f"{name}=.*: a path is needed"):
            pathencoder.convert_features(source, out, layout="trident")
    with pytest.raises(ConfigError, match="path=NoneType: a path is needed"):
        read_features(None)
    made = pathencoder.convert_features("~/a.h5", "~/new/b.h5", layout="stamp")
    assert np.array_equal(read_features("~/new/b.h5").rows, made.rows)
    assert [p.name for p in tmp_path.iterdir()] == ["home"]

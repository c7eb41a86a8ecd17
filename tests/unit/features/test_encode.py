"""`pathencoder.encode_slide`: the rows of the command line, resumed files, and what is refused."""

import dataclasses
import logging
import os
import tempfile

import numpy as np
import pytest
import small_encoders
from small_slides import MemorySlide, section, write_tiff
from torch.optim.swa_utils import AveragedModel

import pathencoder
from pathencoder.cli.main import run
from pathencoder.errors import ConfigError, ImageError, MissingMpp, StoreError, UnknownEncoder
from pathencoder.pretrained.folder import sha256_of


@pytest.fixture
def slide(tmp_path, monkeypatch):
    """A slide in memory that takes the place of files; returns a function that makes it."""

    def make(**options):
        made = MemorySlide(**{"pixels": section(), "path": tmp_path / "s.svs", **options})
        made.path.write_bytes(b"x" * 10)
        monkeypatch.setattr("pathencoder.features.slide.open_slide", lambda path: made)
        return made

    return make


def encode(made, out=None, **options):
    options = {"encoder": small_encoders.shared("cnn"), **options}
    return pathencoder.encode_slide(made.path, out, **options)


@pytest.mark.full
@pytest.mark.parametrize("layout", ["trident", "clam", "stamp", "anndata"])
def test_rows_and_file_are_those_of_the_command_line(tmp_path, layout):
    file = write_tiff(tmp_path / "s.tiff", section(), mpp=0.25)
    # the random convolutions reach numbers that float16 does not hold
    small_encoders.encoder("vit").save_pretrained(tmp_path / "small")
    arguments = ["encode", file, "--as", "slides", "--encoder", tmp_path / "small"]
    arguments += ["--out", tmp_path / "cli", "--layout", layout, "--device", "cpu"]
    assert run([str(a) for a in arguments]) == 0
    inside = {"clam": "h5_files/s.h5", "anndata": "s.h5ad"}.get(layout, "s.h5")
    theirs = pathencoder.read_features(tmp_path / "cli" / inside)
    encoder = pathencoder.load_encoder(tmp_path / "small", device="cpu")
    out = tmp_path / "python" / inside
    ours = pathencoder.encode_slide(str(file), str(out), encoder=encoder, layout=layout)
    assert len(ours.rows) > 10
    for one in (ours, pathencoder.read_features(out)):
        assert np.array_equal(one.rows, theirs.rows)
        assert np.array_equal(one.coords, theirs.coords)
        assert one.attributes["recipe"] == theirs.attributes["recipe"]
    assert (out.parent.parent / "pt_files" / "s.pt").exists() == (layout == "clam")


@pytest.mark.full
def test_an_open_slide_is_taken_and_its_tissue_found(tmp_path):
    file = write_tiff(tmp_path / "s.tiff", section(), mpp=0.25)
    slide = pathencoder.open_slide(file)
    tissue = pathencoder.find_tissue(slide)
    assert tissue.mask.any()
    for same in (pathencoder.find_tissue(slide, 0.25), pathencoder.find_tissue(str(file))):
        np.testing.assert_array_equal(tissue.mask, same.mask)
    with pytest.raises(ConfigError, match="micrometres per pixel"):
        pathencoder.find_tissue(slide, 0)
    encoder = small_encoders.shared("cnn")
    found = pathencoder.encode_slide(slide, encoder=encoder)
    slide.close()
    np.testing.assert_array_equal(found.rows, pathencoder.encode_slide(file, encoder=encoder).rows)
    assert found.mpp == 0.25


def test_several_encoders_share_the_tiles_of_a_slide(slide, tmp_path):
    made = slide()
    encoders = [small_encoders.shared("cnn"), small_encoders.shared("vit")]
    alone = [encode(made, encoder=encoder) for encoder in encoders]
    of_two = made.reads
    found = pathencoder.encode_slide_jointly(made.path, encoders, tmp_path, progress=False)
    assert made.reads - of_two == of_two // 2
    assert list(found) == ["small-cnn", "small-vit"]
    for name, one in zip(found, alone, strict=True):
        written = pathencoder.read_features(tmp_path / name / "s.h5")
        assert len(one.rows) > 10
        assert np.array_equal(found[name].rows, one.rows)
        assert np.array_equal(written.rows, one.rows)


@pytest.mark.parametrize("encoders", [[], "pathencoder-tiny", ["cnn", "cnn"]], ids=str)
def test_encoders_that_are_no_list_of_different_ones_are_refused(slide, encoders):
    given = [small_encoders.shared("cnn")] * 2 if len(encoders) == 2 else encoders
    with pytest.raises(ConfigError, match="encoders"):
        pathencoder.encode_slide_jointly(slide().path, given)


def test_without_out_the_rows_are_the_same_and_no_file_stays(slide, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    kept = encode(slide(), tmp_path / "out" / "s.h5")
    loose = encode(slide())
    assert np.array_equal(loose.rows, kept.rows)
    assert np.array_equal(loose.coords, kept.coords)
    # torch may make a folder of its own there
    left = [name for name in os.listdir(tmp_path / "temporary") if "torchinductor" not in name]
    assert left == []
    assert "savetodir" not in loose.attributes


def test_a_finished_file_is_read_and_a_changed_setting_is_refused(slide, tmp_path):
    made, out = slide(), tmp_path / "s.h5"
    first = encode(made, out)
    made.reads = 0
    assert np.array_equal(encode(made, out).rows, first.rows)
    assert made.reads == 0
    with pytest.raises(StoreError, match=r"target_mpp: 0\.5 there, 1\.0 now.*overwrite=True"):
        encode(made, out, target_mpp=1.0)
    assert len(encode(made, out, target_mpp=1.0, overwrite=True).rows) < len(first.rows)


def test_a_network_that_was_changed_since_it_was_loaded_is_another_encoder(slide, tmp_path):
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "small")
    made, out = slide(), tmp_path / "s.h5"
    encoder = pathencoder.load_encoder(tmp_path / "small", device="cpu")
    first = encode(made, out, encoder=encoder)
    assert first.attributes["sha256"] == encoder.spec.sha256
    encoder.network = AveragedModel(encoder.network)  # a copy in a wrapper
    assert np.array_equal(encode(made, out, encoder=encoder).rows, first.rows)
    encoder.network = encoder.network.module
    weight = next(encoder.network.parameters())
    weight.data.mul_(2)
    with pytest.raises(StoreError, match=rf"sha256: {encoder.spec.sha256} there, .*overwrite=True"):
        encode(made, out, encoder=encoder)
    other = encode(made, tmp_path / "other.h5", encoder=encoder)
    assert not np.allclose(other.rows, first.rows)
    assert other.attributes["sha256"] not in (None, encoder.spec.sha256)
    weight.data.div_(2)  # exact
    assert np.array_equal(encode(made, out, encoder=encoder).rows, first.rows)


@pytest.mark.parametrize(
    ("output", "changes", "readout"),
    [
        ("embedding", {"embedding": "stages:blocks.4/mean"}, "stages:blocks.4/mean"),
        ("dense", {"dense_stage": "blocks.1"}, "blocks.1"),
    ],
)
def test_another_readout_than_the_published_one_is_recorded(
    slide, tmp_path, output, changes, readout
):
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "small")
    encoder = pathencoder.load_encoder(tmp_path / "small", device="cpu")
    made, out = slide(), tmp_path / "s.h5"
    assert "readout" not in encode(made, out, encoder=encoder, output=output).attributes
    published = encoder.spec
    encoder.spec = dataclasses.replace(published, **changes)
    with pytest.raises(StoreError, match=f"readout: as published there, {readout} now"):
        encode(made, out, encoder=encoder, output=output)
    found = encode(made, tmp_path / "other.h5", encoder=encoder, output=output)
    assert found.attributes["readout"] == readout
    encoder.spec = published
    encode(made, out, encoder=encoder, output=output)


def test_weights_that_have_no_published_checksum_are_known_by_their_file(slide, tmp_path):
    folder = small_encoders.in_timm_format(tmp_path / "small", seed=0)
    made, out = slide(), tmp_path / "s.h5"
    first = encode(made, out, encoder=folder, target_mpp=0.5)
    assert first.attributes["sha256"] == sha256_of(folder / "model.safetensors")
    before = pathencoder.load_encoder(folder, device="cpu")
    encode(made, out, encoder=before, target_mpp=0.5)
    small_encoders.in_timm_format(folder, seed=1)
    encode(
        made, out, encoder=before, target_mpp=0.5
    )  # has the weights of the file that was replaced
    with pytest.raises(StoreError, match=r"sha256: .*overwrite=True"):
        encode(made, out, encoder=folder, target_mpp=0.5)


def test_rounded_weights_are_the_published_ones_at_another_precision(slide, tmp_path):
    small_encoders.encoder("vit").save_pretrained(tmp_path / "small")
    encoder = pathencoder.load_encoder(tmp_path / "small", device="cpu", dtype="bf16")
    found = encode(slide(), encoder=encoder)
    assert found.attributes["sha256"] == encoder.spec.sha256
    assert found.attributes["precision"] == "bf16"


def test_views_are_recorded_and_never_mixed(slide, tmp_path):
    made, out = slide(), tmp_path / "s.h5"
    found = encode(made, out, views=4)
    assert found.attributes["views"] == 4
    assert not np.allclose(found.rows, encode(made).rows, rtol=1e-3)
    encoders = [small_encoders.shared("cnn"), small_encoders.shared("vit")]
    both = pathencoder.encode_slide_jointly(made.path, encoders, views=4, progress=False)
    np.testing.assert_array_equal(both["small-cnn"].rows, found.rows)
    made.reads = 0
    assert np.array_equal(encode(made, out, views=4).rows, found.rows)
    assert made.reads == 0
    with pytest.raises(StoreError, match=r"settings \(views: 4 there, 1 now\)"):
        encode(made, out)
    encode(made, out, overwrite=True)
    with pytest.raises(StoreError, match=r"settings \(views: 1 there, 8 now\)"):
        encode(made, out, views=8)


def test_an_encoder_is_given_by_name_or_folder(slide, tmp_path):
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "small")
    assert encode(slide(), encoder=tmp_path / "small").attributes["encoder"] == "small-cnn"
    with pytest.raises(UnknownEncoder):
        encode(slide(), encoder="no-such-encoder")
    with pytest.raises(ConfigError, match="encoder=int"):
        encode(slide(), encoder=3)


def test_notes_and_failures_are_returned_and_logged(slide, caplog):
    coarse = {"openslide.mpp-x": "1.0", "openslide.mpp-y": "1.0"}
    made = slide(properties=coarse, broken=((256, 256, 300, 300),))
    with caplog.at_level(logging.WARNING, "pathencoder"):
        features = encode(made)
    assert "enlarged 2 times" in " ".join(features.notes)
    assert "enlarged 2 times" in caplog.text
    assert f"{len(features.failures)} tiles could not be read" in caplog.text
    assert "256,256" in {failure.part for failure in features.failures}


def test_a_slide_without_tissue_has_no_rows(slide, caplog):
    features = encode(slide(pixels=section(tissue=())))
    assert (features.rows.shape, features.coords.shape) == ((0, 256), (0, 2))
    assert "no tissue found" in caplog.text


def test_a_picture_is_drawn(slide, tmp_path):
    encode(slide(), picture=tmp_path / "p" / "s.png")
    assert (tmp_path / "p" / "s.png").exists()


def test_a_picture_replaces_pictures_of_pathencoder_alone(slide, tmp_path, caplog):
    made, photo = slide(), tmp_path / "s.jpg"
    photo.write_bytes(b"of the user")
    encode(made, tmp_path / "s.h5", picture=photo)
    assert photo.read_bytes() == b"of the user"
    assert "s.jpg was not drawn by pathencoder and is kept" in caplog.text
    encode(made, tmp_path / "s.h5", picture=photo, overwrite=True)
    first = photo.read_bytes()
    photo.write_bytes(first + b" ")
    caplog.clear()
    encode(made, picture=photo)
    assert photo.read_bytes() == first
    assert "is kept" not in caplog.text


def test_a_picture_never_replaces_the_slide(slide, tmp_path):
    made = slide(path=tmp_path / "scan.jpg")
    (tmp_path / "link.jpg").symlink_to(made.path)
    for picture in (made.path, tmp_path / "link.jpg"):
        with pytest.raises(ConfigError, match=r"would replace .*scan\.jpg, a file of the slide"):
            encode(made, picture=picture, overwrite=True)
    vms = slide(path=tmp_path / "scan.vms")  # its pixels lie in .jpg files beside it
    with pytest.raises(ConfigError, match="a file of the slide"):
        encode(vms, picture=made.path)
    assert made.path.read_bytes() == b"x" * 10


def test_progress_is_shown_where_it_is_asked_for(slide, capsys):
    encode(slide(), progress=False)
    assert capsys.readouterr().err == ""
    encode(slide(), progress=True)
    assert "s.svs" in capsys.readouterr().err


def test_an_unknown_scale_is_an_error_until_it_is_given(slide):
    made = slide(properties={})
    with pytest.raises(MissingMpp, match=r"mpp=0\.25 in Python"):
        encode(made)
    assert encode(made, mpp=np.float32(0.5)).attributes["slide_mpp"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "features"}, r"end it in \.h5"),
        ({"out": "s.h5", "layout": "clam"}, "h5_files/NAME"),
        ({"out": 3}, "out=int: a path"),
        ({"layout": "stamp"}, "layout of a file"),
        ({"layout": "h5"}, "one of trident, clam, stamp"),
        ({"output": "dense", "layout": "clam", "out": "s.h5"}, "only the layout trident"),
        ({"mpp": "0.25"}, "mpp='0.25' is not a scale"),
        ({"min_tissue": 25}, "min_tissue=25: a number from 0 to 1"),
        ({"overlap_px": 0.5}, "overlap_px=0.5: a whole number"),
        ({"overlap_px": 64}, "leaves no step"),
        ({"picture": "s.gif"}, r"end it in \.jpg"),
        ({"progress": "bar"}, "progress='bar'"),
        ({"precision": "int8"}, "int8"),
        ({"output": "cls"}, "no class token"),
    ],
)
def test_settings_that_are_not_valid_are_refused_before_the_work(
    slide, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    made = slide()
    with pytest.raises(ConfigError, match=message):
        encode(made, **options)
    assert made.reads == 0


def test_a_slide_given_as_an_image_names_this_call(tmp_path):
    (tmp_path / "s.svs").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"pathencoder\.encode_slide\('s\.svs'\)"):
        small_encoders.shared("cnn").encode(tmp_path / "s.svs", progress=False)

"""Paths, folders and files of several images: accepted, named, left out or refused."""

import io
import logging
import os

import numpy as np
import pytest
from PIL import Image, ImageFile
from small_encoders import picture

from pathencoder.errors import ConfigError, ImageError
from pathencoder.formats import decode
from pathencoder.formats.image_scale import image_scale
from pathencoder.images import decode_image, iterate, list_images, open_image, survey
from pathencoder.tables import read_table


def tile(path, number=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number)).save(path)
    return path


def names(folder):
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


def test_linked_folders_are_walked_and_loops_are_named_once(tmp_path, caplog):
    tile(tmp_path / "disk/a.png")
    tile(tmp_path / "set/own.png")
    (tmp_path / "set/more").symlink_to(tmp_path / "disk")
    (tmp_path / "set/sub").mkdir()
    (tmp_path / "set/sub/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/gone.png").symlink_to(tmp_path / "nowhere.png")
    with caplog.at_level(logging.WARNING):
        assert names(tmp_path / "set") == ["more/a.png", "own.png"]
    (record,) = caplog.records
    assert "sub/loop" in record.getMessage()
    assert "gone.png" in record.getMessage()
    assert [item.key for item in iterate(tmp_path / "set")] == ["more/a.png", "own.png"]
    assert survey([tmp_path / "set", tmp_path / "set/own.png"])[1] == 3


def test_hidden_files_are_left_out_without_a_warning(tmp_path, caplog):
    tile(tmp_path / "a.png")
    tile(tmp_path / ".ipynb_checkpoints/a-checkpoint.png")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    with caplog.at_level(logging.WARNING):
        assert names(tmp_path) == ["a.png"]
    assert not caplog.records


def test_slides_in_a_folder_of_images_are_named(tmp_path, caplog):
    tile(tmp_path / "a.png")
    (tmp_path / "b.svs").write_bytes(b"II*\0")
    with caplog.at_level(logging.WARNING):
        assert [item.key for item in iterate(tmp_path)] == ["a.png"]
    assert "slides are left out (b.svs)" in caplog.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match=r"no images in.*slides.*pathencoder encode"):
        iterate(tmp_path)


def copy_under(folder, name):
    """A copy of a tile under a name of any bytes; skips where the file system refuses."""
    source = tile(folder / "ok.png")
    target = os.path.join(os.fsencode(folder), name)
    try:
        with open(target, "wb") as stream:
            stream.write(source.read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return os.fsdecode(target)


def test_names_that_are_not_utf8_get_valid_keys(tmp_path):
    path = copy_under(tmp_path, b"M\xfcller.png")
    items, total = survey(tmp_path)
    found = {item.key: item for item in items}
    assert total == 2
    assert set(found) == {"M\\xfcller.png", "ok.png"}
    assert found["M\\xfcller.png"].where.encode().endswith(b"M\\xfcller.png")
    np.testing.assert_array_equal(found["M\\xfcller.png"].load(), picture(1))
    np.testing.assert_array_equal(open_image(path), picture(1))
    with open(path, "wb"):
        pass
    with pytest.raises(ImageError) as caught:
        open_image(path)
    str(caught.value).encode()


def test_two_names_of_one_key_are_refused(tmp_path):
    copy_under(tmp_path, b"M\xfcller.png")
    tile(tmp_path / "M\\xfcller.png")
    with pytest.raises(ImageError, match=r"two names would be the same key.*Rename"):
        iterate(tmp_path)


def test_arrays_of_paths_are_lists_of_paths(tmp_path):
    paths = [str(tile(tmp_path / f"{i}.png", i)) for i in range(3)]
    for form in (
        np.array(paths),
        np.array(paths, dtype=object),
        np.array([tmp_path / "0.png", *paths[1:]], dtype=object),
    ):
        items, total = survey(form)
        assert total == 3
        for number, item in enumerate(items):
            assert item.key == number
            np.testing.assert_array_equal(item.load(), picture(number))
    np.testing.assert_array_equal(open_image(np.array(paths[2])), picture(2))
    ragged = np.empty(2, dtype=object)
    ragged[:] = [picture(1), picture(2, height=50)]
    assert [item.load().shape for item in iterate(ragged)] == [
        picture(1).shape,
        picture(2, height=50).shape,
    ]
    assert survey([np.array(paths), picture(1)])[1] == 4


@pytest.mark.parametrize("name", ["a.svs", "a.NDPI", "a.mrxs", "a.vsi", "a.dcm"])
def test_a_slide_is_refused_and_fails_alone(tmp_path, name):
    (tmp_path / name).write_bytes(b"II*\0")
    with pytest.raises(
        ImageError, match=rf"{name}: a whole slide.*`pathencoder encode {name} --out"
    ):
        open_image(tmp_path / name)
    first, slide, last = iterate([tile(tmp_path / "t.png"), tmp_path / name, picture(2)])
    assert [first.load().shape, last.load().shape] == [picture(1).shape] * 2
    with pytest.raises(ImageError, match=r"images\[1\].*a whole slide"):
        slide.load()
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / f"nowhere{name}")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_several_frames_are_refused(tmp_path, kind):
    frames = [Image.fromarray(picture(i)) for i in range(2)]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="holds 2 images: save the one you need"):
        open_image(tmp_path / "a")
    with Image.open(tmp_path / "a") as opened:
        with pytest.raises(ImageError, match="holds 2 images"):
            open_image(opened)
        opened.seek(1)  # a frame that was chosen
        assert open_image(opened).shape == picture(1).shape
    frames[0].save(tmp_path / "one", kind)
    assert open_image(tmp_path / "one").shape == picture(1).shape


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000"])
def test_half_a_file_is_refused(kind):
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, kind)
    data = buffer.getvalue()
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(ImageError):
            decode_image(data[: int(part * len(data))])


def test_a_warning_when_pillow_accepts_truncated_files(monkeypatch, caplog):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    decode._warn_of_truncation.cache_clear()
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "PNG")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            decode_image(buffer.getvalue())
    assert caplog.text.count("LOAD_TRUNCATED_IMAGES is on") == 1
    decode._warn_of_truncation.cache_clear()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this file system")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    # so that opening it without the check is an error here, not a hang
    keep = os.open(tmp_path / "pipe.png", os.O_RDWR)
    try:
        os.write(keep, b"no image")
        with pytest.raises(ImageError, match="neither a file nor a folder"):
            open_image(tmp_path / "pipe.png")
        assert image_scale(tmp_path / "pipe.png") is None
        with pytest.raises(ConfigError, match="neither a file nor a folder"):
            read_table(tmp_path / "pipe.png")
    finally:
        os.close(keep)


def test_images_of_unsupported_formats_are_named(tmp_path, caplog):
    tile(tmp_path / "a.png")
    for name in ("b.heic", "c.jfif", "notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING):
        assert [item.key for item in iterate(tmp_path)] == ["a.png"]
    assert "2 images of unsupported formats are left out (b.heic, c.jfif)" in caplog.text


@pytest.mark.parametrize("size", [(1, 1), (224, 224), (301, 1027)])
def test_pixels_are_those_of_numpy_s_conversion(size):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    out = io.BytesIO()
    image.save(out, "PNG")
    assert np.array_equal(decode_image(out.getvalue()), np.asarray(image))

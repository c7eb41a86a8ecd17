"""Training reads a folder of images as `encode` does."""

import io
import logging

import numpy as np
import pytest
from PIL import Image
from small_shards import tile, tiles_of, write_table, write_tar

from pathencoder.images import list_images, open_image
from training.data.corpus import open_corpus

pytestmark = pytest.mark.full


@pytest.fixture
def tiles(tmp_path):
    root = tmp_path / "c"
    for name, value in (("s0/0.png", 0), ("s1/1.png", 1)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(tile(value))
    return root


def test_hidden_files_and_folders_are_left_out(tiles, caplog):
    for name in (
        "s0/.ipynb_checkpoints/0-checkpoint.png",
        "s0/._0.png",
        ".Trash-1000/files/deleted.png",
    ):
        (tiles / name).parent.mkdir(parents=True, exist_ok=True)
        (tiles / name).write_bytes(tile(5))
    for name in ("s1/1.labels.png", "s1/1.types.tif", "s1/notes.txt", "s1/slide.svs"):
        (tiles / name).write_bytes(tile(5))
    with caplog.at_level(logging.INFO):
        corpus = open_corpus(tiles)
    assert tiles_of(corpus) == {"s0/0.png": 0, "s1/1.png": 1}
    assert corpus.slide_names == ["s0", "s1"]
    assert "3 (hidden), 2 (label map), 1 (no image (.txt)), 1 (no image (.svs))" in caplog.text


def test_linked_folders_are_followed_under_the_names_of_the_links(tiles, tmp_path, caplog):
    (tmp_path / "blob77").mkdir()
    (tmp_path / "blob77/t0.png").write_bytes(tile(7))
    (tiles / "s2").symlink_to(tmp_path / "blob77")
    (tiles / "s1/loop").symlink_to(tiles)
    (tiles / "s1/gone.png").symlink_to(tmp_path / "nowhere")
    corpus = open_corpus(tiles)
    assert tiles_of(corpus) == {"s0/0.png": 0, "s1/1.png": 1, "s2/t0.png": 7}
    assert corpus.slide_names == ["s0", "s1", "s2"]
    assert "loop" in caplog.text
    assert "gone.png" in caplog.text


def test_names_that_are_no_utf8_are_kept(tiles):
    (tiles / b"s1/M\xfcller.png".decode("utf-8", "surrogateescape")).write_bytes(tile(4))
    corpus = open_corpus(tiles)
    assert corpus.keys[-1] == r"s1/M\xfcller.png"
    corpus.digest.encode()


def test_every_suffix_of_encode_is_a_tile(tiles):
    for suffix, form in (
        (".gif", "GIF"),
        (".ppm", "PPM"),
        (".jp2", "JPEG2000"),
        (".WEBP", "WEBP"),
        (".JPG", "JPEG"),
    ):
        Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tiles / f"s0/x{suffix}", form)
    assert sorted(open_corpus(tiles).keys) == sorted(
        p.relative_to(tiles).as_posix() for p in list_images(tiles)
    )


def save(image, **options):
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(Image.fromarray(np.arange(8 * 4 * 3, dtype=np.uint8).reshape(8, 4, 3)), exif=exif)


ODD = {
    "sixteen": lambda: save(Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8))),
    "alpha": lambda: save(
        Image.fromarray(np.dstack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 128, np.uint8)]))
    ),
    "grey": lambda: save(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))),
    "turned": turned,
}


@pytest.mark.parametrize("kind", ODD)
def test_images_are_decoded_as_encode_does(tmp_path, kind):
    data = ODD[kind]()
    write_tar(tmp_path / "a.tar", [("s/x.png", data)])
    (tmp_path / "s").mkdir()
    (tmp_path / "s/x.png").write_bytes(data)
    wanted = open_image(tmp_path / "s/x.png")
    assert np.array_equal(open_corpus(tmp_path).read(0), wanted)
    write_table(tmp_path / "manifest.csv", "shard key\na.tar s/x")
    assert np.array_equal(open_corpus(tmp_path).read(0), wanted)
    assert (
        not np.array_equal(wanted, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        or kind == "grey"
    )

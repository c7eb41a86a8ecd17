"""TIFFs by their tags: pages, pyramids, and damage of every byte."""

import numpy as np
import pytest
from PIL import Image
from tiff_headers import page, tiff

from pathencoder.formats.file_kinds import looks_like_slide
from pathencoder.formats.tiff_tags import is_pyramid, read_pages


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tags_are_read_in_both_byte_orders_and_sizes(tmp_path, order, big):
    pages = [
        page(640, 480, tiled=True, resolution=20000.5, unit="centimeter", description="a µm text"),
        page(320, 240, t258=16, t262=0, t284=2),
    ]
    (tmp_path / "a.tif").write_bytes(tiff(*pages, order=order, big=big))
    first, second = read_pages(tmp_path / "a.tif")
    assert (first.width, first.height, first.tiled, first.unit) == (640, 480, True, "centimeter")
    assert first.resolution == pytest.approx((20000.5, 20000.5))
    assert first.description == "a µm text"
    assert (second.width, second.bits, second.photometric, second.planar) == (320, 16, 0, True)
    assert (second.tiled, second.resolution, second.unit) == (False, None, "inch")


def test_what_pillow_writes_is_read(tmp_path):
    image = Image.fromarray(np.zeros((30, 40, 3), np.uint8))
    image.save(tmp_path / "a.tif", resolution_unit=3, x_resolution=20000, y_resolution=10000)
    (found,) = read_pages(tmp_path / "a.tif")
    assert (found.width, found.height, found.samples, found.bits) == (40, 30, 3, 8)
    assert found.resolution == (20000, 10000)


def test_no_damage_raises_or_loops(tmp_path):
    first = page(640, 480, tiled=True, description="x" * 40)
    whole = tiff(first, page(320, 240), sub_pages=[page(160, 120)])
    path = tmp_path / "a.tif"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert len(read_pages(path)) <= 3
    for at in range(len(whole)):
        for value in (0, 1, 255):
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            assert len(read_pages(path)) <= 256


def test_a_page_that_names_itself_as_the_next_is_one_page(tmp_path):
    data = bytearray(tiff(page(640, 480)))
    data[-4:] = data[4:8]
    (tmp_path / "a.tif").write_bytes(data)
    assert len(read_pages(tmp_path / "a.tif")) == 1


@pytest.mark.parametrize(
    ("pages", "sub_pages", "slide"),
    [
        ([page(512, 384, tiled=True), page(128, 96)], [], True),
        ([page(2220, 2967, tiled=True), page(277, 370)], [], True),  # rounded sizes
        ([page(512, 384, tiled=True)], [page(256, 192)], True),
        ([page(512, 384), page(128, 96)], [], False),  # strips: OpenSlide reads no level of it
        ([page(512, 384, tiled=True), page(512, 384)], [], False),  # planes of a stack
        ([page(512, 384, tiled=True), page(100, 100)], [], False),  # another image
        ([page(4096, 4096, tiled=True)], [], False),
        ([page(4097, 16)], [], True),
        ([page(16, 4097, tiled=True)], [], True),
    ],
)
def test_a_tiff_is_a_slide_when_it_is_a_pyramid_or_long(tmp_path, pages, sub_pages, slide):
    path = tmp_path / "a.TIF"
    path.write_bytes(tiff(*pages, sub_pages=sub_pages))
    assert looks_like_slide(path) is slide


def test_other_files_are_slides_by_their_suffix(tmp_path):
    (tmp_path / "folder.svs").mkdir()
    (tmp_path / "text.tif").write_text("no tiff")
    assert looks_like_slide("a.SVS")
    assert looks_like_slide("a.vsi")
    names = ("folder.svs", "text.tif", "gone.tif", "a.png", "")
    assert not any(looks_like_slide(tmp_path / name) for name in names)


@pytest.mark.full
def test_what_tifffile_writes_is_read(tmp_path):
    import tifffile

    data = np.zeros((512, 640, 3), np.uint8)
    with tifffile.TiffWriter(tmp_path / "sub.tif", bigtiff=True) as file:
        file.write(data, tile=(256, 256), photometric="rgb", subifds=1)
        file.write(data[::2, ::2], tile=(256, 256), photometric="rgb", subfiletype=1)
    pages = read_pages(tmp_path / "sub.tif")
    assert [(p.width, p.height) for p in pages] == [(640, 512), (320, 256)]
    assert is_pyramid(pages)

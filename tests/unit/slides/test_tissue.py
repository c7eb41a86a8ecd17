"""The tissue mask: pale stains stay, glass, shadows and dark fields go.

Damaged parts count as tissue; shares are exact.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED
from PIL import Image
from small_slides import MemorySlide, section

from pathencoder.errors import SlideError
from pathencoder.slides import tissue
from pathencoder.slides.filters import closed
from pathencoder.slides.glass import glass_colour
from pathencoder.slides.overview import thumbnail
from pathencoder.slides.tissue import TissueMask, find_tissue, tissue_mask

SLIDES = SHARED / "data/slides"
BOX = (60, 40, 160, 120)


def agreement(mask, box=BOX):
    """Intersection over union of a mask with a box."""
    truth = np.zeros_like(mask)
    truth[box[1] : box[3], box[0] : box[2]] = True
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("H&E", (190, 120, 170)),
        ("DAB", (150, 110, 80)),
        ("pale haematoxylin", (226, 228, 238)),
        ("pale eosin", (240, 228, 234)),
        ("dense haematoxylin", (70, 50, 120)),
        ("light green counterstain", (150, 200, 190)),
        ("aniline blue", (70, 100, 180)),
    ],
)
def test_stained_tissue_is_found(name, colour):
    image = section(240, 160, (BOX,), colour)
    assert agreement(closed(tissue_mask(image, 8.0), 4)) > 0.85, name


def test_grey_shadow_and_black_ink_are_not_tissue():
    image = section(240, 160, (BOX,))
    image[:, 200:] = 215  # a coverslip's shadow
    image[130:, :180] = (14, 14, 30)  # a marker, the slide's frame
    mask = tissue_mask(image, 8.0)
    assert not mask[:, 205:].any()
    assert not mask[136:, :180].any()
    assert agreement(mask) > 0.85


def test_a_shadow_that_darkens_towards_the_edge_is_no_tissue():
    """As scanners leave at a slide's edges: a gradient, not quite grey, over glass and tissue."""
    image = section(240, 160, ((60, 40, 160, 160),)).astype(float)
    image[140:] *= np.linspace(1, 0.55, 20)[:, None, None] ** np.array([1, 1.02, 1.07])
    found = find_tissue(MemorySlide(image.astype(np.uint8)), 8.0)
    assert not found.mask[142:, :55].any()
    assert found.mask[142:, 64:156].mean() > 0.9
    assert found.dropped[tissue.SHADOW][146:, :55].mean() > 0.9
    assert "left out as shadow" in found.note


def drawn(image, spectrum, box):
    """A pen mark over a picture: its density is added to what lies below."""
    x0, y0, x1, y1 = box
    image = image.astype(float)
    uneven = 1 + 0.05 * np.random.default_rng(1).normal(size=(y1 - y0, x1 - x0, 1))
    image[y0:y1, x0:x1] *= 10 ** (-uneven * np.array(spectrum))
    return image.astype(np.uint8)


INKS = {
    "green": (0.66, 0.18, 0.24),
    "blue": (1.3, 1.0, 0.35),
    "red": (0.15, 1.5, 1.65),
    "black": (1.1, 1.25, 1.1),
}
MARK = (20, 70, 220, 80)  # over glass and the box of tissue


@pytest.mark.parametrize("name", INKS)
def test_pen_is_dropped_and_said(name):
    image = drawn(section(240, 160, (BOX,)), INKS[name], MARK)
    found = find_tissue(MemorySlide(image), 8.0)
    x0, y0, x1, y1 = MARK
    assert found.mask[y0:y1, x0:x1].mean() < 0.05
    assert found.dropped[tissue.PEN][y0:y1, x0:x1].mean() > 0.95
    assert found.mask[44:64, 64:156].mean() > 0.9
    assert found.mask[86:116, 64:156].mean() > 0.9
    assert "pen on" in found.note


def test_a_ring_of_pen_around_a_small_biopsy_is_pen():
    """Most of what is coloured is ink."""
    image = section(240, 160, ((100, 70, 140, 90),))
    for side in ((40, 20, 200, 30), (40, 130, 200, 140), (40, 30, 50, 130), (190, 30, 200, 130)):
        image = drawn(image, INKS["green"], side)
    found = find_tissue(MemorySlide(image), 8.0)
    assert agreement(found.mask, (100, 70, 140, 90)) > 0.7


@pytest.mark.parametrize("colour", [(214, 110, 140), (190, 50, 62), (60, 110, 60), (90, 40, 110)])
def test_a_colour_of_the_whole_section_is_a_stain(colour):
    """Eosin, a lake of blood, a green counterstain, dense hematoxylin.

    Even where it looks like ink.
    """
    found = find_tissue(MemorySlide(section(240, 160, (BOX,), colour)), 8.0)
    assert agreement(found.mask) > 0.85


def test_a_green_stain_beside_tissue_of_another_is_no_pen():
    """Two sections on a slide, one with a green counterstain that is as dense as ink in places."""
    image = section(240, 160, (BOX,), (98, 163, 148))
    image[40:120, 180:230] = section(50, 80, ((0, 0, 50, 80),))
    found = find_tissue(MemorySlide(image), 8.0)
    assert agreement(found.mask[:, :170]) > 0.85
    assert "taken for the stain" in found.note


def test_a_part_that_bled_is_no_red_pen():
    image = section(240, 160, (BOX, (70, 60, 110, 100)), (200, 130, 170))
    image[60:100, 70:110] = section(40, 40, ((0, 0, 40, 40),), (190, 55, 75))
    assert agreement(tissue_mask(image, 8.0)) > 0.85


def test_blank_glass_holds_no_tissue_and_says_nothing_more():
    assert find_tissue(MemorySlide(np.full((64, 64, 3), 243, np.uint8)), 8.0).note == ""
    assert not tissue_mask(section(240, 160, ()), 8.0).any()
    assert not tissue_mask(np.full((64, 64, 3), 255, np.uint8), 8.0).any()


@pytest.mark.parametrize("fill", [0, 16, 128, 255, (40, 60, 90)])
@pytest.mark.parametrize("glass", [True, False], ids=["on glass", "cut out"])
def test_surroundings_of_one_colour_are_neither_tissue_nor_fluorescence(fill, glass):
    """Converters fill what was not scanned; most of a picture may be that."""
    box = (140, 100, 260, 220)
    image = np.full((400, 500, 3), fill, np.uint8)
    inside = (20, 20, 100, 100) if glass else (0, 0, 120, 120)
    image[100:220, 140:260] = section(120, 120, (inside,))
    found = find_tissue(MemorySlide(image), 8.0)
    truth = (160, 120, 240, 200) if glass else box
    assert agreement(found.mask, truth) > 0.85
    assert "dark background" not in found.note
    white = fill == 255
    assert white or found.dropped[tissue.UNSCANNED][:90].all()


def test_specks_of_dust_go_and_a_net_stays_a_net():
    image = section(300, 300, ())
    image[20:22, 20:22] = (90, 60, 120)
    for row in (100, 101):
        image[row : row + 150 : 10, 100:250] = (200, 150, 190)  # septa, two pixels in ten
    found = find_tissue(MemorySlide(image), 8.0)
    assert not found.mask[:60, :60].any()
    assert 0.2 < found.mask[110:240, 110:240].mean() < 0.6
    assert found.outline(8.0)[110:240, 110:240].mean() > 0.95


def test_a_tile_inside_a_hole_is_glass():
    image = section(300, 300, ((50, 50, 250, 250),))
    image[140:156, 140:156] = 243  # 128 um
    share = find_tissue(MemorySlide(image), 8.0).share(np.array([141.0]), np.array([141.0]), 14)
    assert share[0, 0] < 0.2


@pytest.mark.parametrize("mpp", [0.25, 1.0, 4.0, 8.0])
def test_a_pale_field_without_glass_is_tissue_at_any_scale(mpp):
    """White clefts outshine the pale tone that would be taken for glass."""
    random = np.random.default_rng(0)
    image = np.array([236, 222, 230]) + 3 * random.normal(0, 1, (240, 240, 1))
    for row, column in random.integers(10, 220, (60, 2)):
        image[row : row + 3, column : column + 12] = 250
    found = find_tissue(MemorySlide(np.clip(image, 0, 255).astype(np.uint8)), mpp)
    assert found.mask.all()
    assert found.notes == (tissue.NO_GLASS,)


def test_a_picture_without_colour_is_said():
    image = section(240, 160, (BOX,), (120, 120, 120))
    found = find_tissue(MemorySlide(image), 8.0)
    assert agreement(found.mask) > 0.85
    assert found.notes == (tissue.GREY,)


def test_glass_colour_is_the_glass_and_not_the_pale_tissue_that_fills_the_picture():
    image = section(240, 160, ((0, 0, 200, 160),), (225, 226, 238), glass=246)
    assert np.abs(glass_colour(image) - 246).max() < 3


@pytest.mark.parametrize("signal", [(0, 0, 120), (90, 20, 130), (70, 70, 70)])
def test_a_dark_field_is_refused_with_a_note(signal):
    image = np.random.default_rng(0).integers(0, 5, (160, 240, 3)).astype(np.uint8)
    image[40:120, 60:160] += np.array(signal, np.uint8)
    found = find_tissue(MemorySlide(image, properties={}), 8.0)
    assert found.notes == (tissue.DARK,)
    assert not found.mask.any()


def test_thumbnail_reads_in_blocks_and_shows_the_slide():
    slide = MemorySlide(section(3000, 2200), downsamples=(1.0, 4.0))
    overview = thumbnail(slide, 0.5, target_mpp=4.0)
    assert overview.image.shape == (275, 375, 3)
    assert not overview.unread.any()
    expected = np.asarray(Image.fromarray(slide.pixels).resize((375, 275), Image.Resampling.BOX))
    assert np.abs(overview.image.astype(int) - expected).mean() < 2


def test_a_damaged_level_is_replaced_by_a_finer_one():
    slide = MemorySlide(
        section(2048, 1536),
        downsamples=(1.0, 4.0),
        broken=((600, 300, 900, 600),),
        broken_levels=(1,),
    )
    overview = thumbnail(slide, 0.5)
    assert not overview.unread.any()


def test_what_cannot_be_read_counts_as_tissue():
    slide = MemorySlide(
        section(2048, 1536, ((200, 200, 800, 800),)),
        downsamples=(1.0, 4.0),
        broken=((1500, 1000, 1600, 1100),),
    )
    found = find_tissue(slide, 0.5)
    share = found.share(np.array([1500.0]), np.array([1000.0]), 100)
    assert share[0, 0] == 1
    assert 0.1 < found.mask.mean() < 0.35


def test_nothing_readable_is_an_error():
    with pytest.raises(SlideError, match="no part of it can be read"):
        thumbnail(MemorySlide(section(600, 600), broken=((0, 0, 600, 600),)), 0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-30, 130), st.floats(-30, 130), st.floats(0.5, 90))
def test_share_equals_counting_pixels(seed, x, y, side):
    """Against a count on a grid a hundred times finer."""
    mask = np.random.default_rng(seed).random((20, 25)) < 0.5
    found = TissueMask(mask, (3, 5), (4.0, 4.0)).share(np.array([x]), np.array([y]), side)[0, 0]
    fine = (np.arange(200) + 0.5) / 200 * side
    columns, rows = (
        np.floor((x + fine - 3) / 4).astype(int),
        np.floor((y + fine - 5) / 4).astype(int),
    )
    inside = ((rows >= 0) & (rows < 20))[:, None] & ((columns >= 0) & (columns < 25))[None]
    values = mask[np.clip(rows, 0, 19)[:, None], np.clip(columns, 0, 24)[None]] & inside
    assert found == pytest.approx(values.mean(), abs=0.02)


@pytest.mark.skipif(not SLIDES.exists(), reason="needs the shared pictures")
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("pale_hematoxylin_valis.webp", 0.25, 0.45),
        ("ratkidney_PanCK_IHC_BIRL.jpg", 0.55, 0.75),
        ("ratkidney_HE_BIRL.jpg", 0.55, 0.75),
        ("lunglesion3_stains/Cc10-5.jpg", 0.4, 0.7),
        ("lunglesion3_stains/He.jpg", 0.5, 0.75),
        ("he_breast_TUPAC_498.webp", 0.55, 0.7),
    ],
)
def test_real_thumbnails(name, least, most):
    """Shares that a look at the pictures bears out.

    With thresholds made for H&E the pale ones come out near zero.
    """
    image = np.asarray(Image.open(SLIDES / "thumbnails" / name).convert("RGB"))
    assert least < tissue_mask(image, 8.0).mean() < most

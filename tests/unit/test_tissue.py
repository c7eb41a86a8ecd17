"""The tissue mask: pale stains stay, glass, shadows and dark fields go; damaged parts count as tissue; shares are exact."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_slides import MemorySlide, section

from pathencoder.errors import SlideError
from pathencoder.slides import tissue
from pathencoder.slides.tissue import TissueMask, find_tissue, glass_colour, thumbnail, tissue_mask

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "slides"
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
    ],
)
def test_stained_tissue_is_found(name, colour):
    image = section(240, 160, (BOX,), colour)
    assert agreement(tissue_mask(image, 8.0)) > 0.85, name


def test_grey_shadow_and_black_ink_are_not_tissue():
    image = section(240, 160, (BOX,))
    image[:, 200:] = 215  # a coverslip's shadow
    image[130:, :180] = (14, 14, 30)  # a marker, the slide's frame
    mask = tissue_mask(image, 8.0)
    assert not mask[:, 205:].any()
    assert not mask[136:, :180].any()
    assert agreement(mask) > 0.85


def test_blank_glass_holds_no_tissue():
    assert not tissue_mask(section(240, 160, ()), 8.0).any()
    assert not tissue_mask(np.full((64, 64, 3), 255, np.uint8), 8.0).any()


def test_specks_of_dust_go_and_a_net_stays():
    image = section(300, 300, ())
    image[20:22, 20:22] = (90, 60, 120)
    image[100:250:6, 100:250] = (200, 150, 190)  # septa, two pixels in six
    image[101:251:6, 100:250] = (200, 150, 190)
    mask = tissue_mask(image, 8.0)
    assert not mask[:60, :60].any()
    assert mask[110:240, 110:240].mean() > 0.95


def test_glass_colour_is_the_glass_and_not_the_pale_tissue_that_fills_the_picture():
    image = section(240, 160, ((0, 0, 200, 160),), (225, 226, 238), glass=246)
    assert np.abs(glass_colour(image) - 246).max() < 3


def test_dark_field_is_not_taken_whole():
    image = np.zeros((160, 240, 3), np.uint8)
    image[40:120, 60:160, 2] = 120
    found = find_tissue(MemorySlide(image, properties={}), 8.0)
    assert found.note == tissue.DARK
    assert agreement(found.mask) > 0.8


def test_thumbnail_reads_in_blocks_and_shows_the_slide():
    slide = MemorySlide(section(3000, 2200), downsamples=(1.0, 4.0))
    overview = thumbnail(slide, 0.5, target_mpp=4.0)
    assert overview.image.shape == (275, 375, 3)
    assert not overview.unread.any()
    expected = np.asarray(Image.fromarray(slide.pixels).resize((375, 275), Image.Resampling.BOX))
    assert np.abs(overview.image.astype(int) - expected).mean() < 2


def test_a_damaged_level_is_replaced_by_a_finer_one():
    slide = MemorySlide(section(2048, 1536), downsamples=(1.0, 4.0), broken=((600, 300, 900, 600),), broken_levels=(1,))
    overview = thumbnail(slide, 0.5)
    assert not overview.unread.any()


def test_what_cannot_be_read_counts_as_tissue():
    slide = MemorySlide(section(2048, 1536, ((200, 200, 800, 800),)), downsamples=(1.0, 4.0), broken=((1500, 1000, 1600, 1100),))
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
    columns, rows = np.floor((x + fine - 3) / 4).astype(int), np.floor((y + fine - 5) / 4).astype(int)
    inside = ((rows >= 0) & (rows < 20))[:, None] & ((columns >= 0) & (columns < 25))[None]
    values = mask[np.clip(rows, 0, 19)[:, None], np.clip(columns, 0, 24)[None]] & inside
    assert found == pytest.approx(values.mean(), abs=0.02)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared pictures")
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("pale_hematoxylin_valis.webp", 0.25, 0.45),
        ("ratkidney_PanCK_IHC_BIRL.jpg", 0.55, 0.75),
        ("ratkidney_HE_BIRL.jpg", 0.55, 0.75),
        ("lunglesion3_stains/Cc10-5.jpg", 0.6, 0.95),
        ("lunglesion3_stains/He.jpg", 0.6, 0.95),
        ("he_breast_TUPAC_498.webp", 0.55, 0.7),
    ],
)
def test_real_thumbnails(name, least, most):
    """Shares that a look at the pictures bears out; with thresholds made for H&E the pale ones come out near zero."""
    image = np.asarray(Image.open(SHARED / "thumbnails" / name).convert("RGB"))
    assert least < tissue_mask(image, 8.0).mean() < most

"""Micrometres per pixel: every claim is read, wrong units and contradictions are refused."""

import math

import numpy as np
import pytest
from PIL import Image
from tiff_headers import page, tiff

from pathencoder.errors import ConfigError, MissingMpp, SlideError
from pathencoder.features.provenance import Settings
from pathencoder.formats.image_scale import image_scale
from pathencoder.mpp_claims import described_size, of_description, power_in
from pathencoder.slides.mpp import find_mpp, scale_notes


def tags(per_unit, unit="centimeter", **more):
    """OpenSlide's properties of a generic TIFF with this resolution."""
    mpp = {"centimeter": 1e4, "inch": 25_400}[unit] / per_unit
    found = {"openslide.vendor": "generic-tiff", "tiff.ResolutionUnit": unit}
    found |= {"openslide.mpp-x": f"{mpp}", "openslide.mpp-y": f"{mpp}"}
    return found | {"tiff.XResolution": f"{per_unit}", "tiff.YResolution": f"{per_unit}"} | more


def aperio(mpp=None, power=None, resolution=None, line="", size=None):
    """OpenSlide's properties of an Aperio slide; resolution in pixels per cm."""
    found = {"openslide.vendor": "aperio"}
    if mpp:
        found |= {"openslide.mpp-x": f"{mpp}", "openslide.mpp-y": f"{mpp}", "aperio.MPP": f"{mpp}"}
    if power:
        found |= {"aperio.AppMag": f"{power}", "openslide.objective-power": f"{power}"}
    if resolution:
        found |= {"tiff.ResolutionUnit": "centimeter"}
        found |= {"tiff.XResolution": f"{resolution}", "tiff.YResolution": f"{resolution}"}
    if size:
        names = ("openslide.level[0].width", "openslide.level[0].height")
        found |= dict(zip(names, map(str, size), strict=True))
    return found | {"tiff.ImageDescription": f"Aperio Image Library v8\r\n{line}|MPP = {mpp}"}


@pytest.mark.parametrize(
    ("mpp", "likely"),
    [
        (0.0499, "0.499"),
        (0.0252, "0.252"),
        (4.99, "0.499"),
        (1.267, "0.499"),
        (2.27, "0.227"),
        (3.3, None),
    ],
)
def test_a_wrong_unit_is_refused_and_named(mpp, likely):
    with pytest.raises(MissingMpp, match=f"says? {mpp:g} um/px") as error:
        find_mpp(tags(1e4 / mpp), name="a.tif")
    assert "--mpp" in str(error.value)
    assert "mixed up" in str(error.value) if likely else "mixed up" not in str(error.value)
    assert f"it is {likely}" in str(error.value) if likely else True
    assert find_mpp(tags(1e4 / mpp), name="a.tif", given=mpp).value == mpp


@pytest.mark.parametrize("mpp", [0.1165, 0.2197, 0.25, 0.3461, 0.499, 0.55, 1.0])
def test_scales_of_scanners_are_accepted(mpp):
    assert find_mpp(tags(1e4 / mpp), name="a.tif").value == pytest.approx(mpp)
    assert find_mpp(tags(25_400 / mpp, "inch"), name="a.tif").value == pytest.approx(mpp)
    assert find_mpp(aperio(mpp, 10 / mpp), name="a.svs").source == "openslide.mpp-x"


@pytest.mark.parametrize(("mpp", "power"), [(0.07, 100), (2.0, 5), (4.0, 2.5), (0.2325, 20)])
def test_an_objective_confirms_a_scale(mpp, power):
    assert find_mpp(aperio(mpp, power), name="a.svs").value == mpp


MISFITS = [(0.998, 20), (0.0499, 20), (4.99, 20), (0.5, 40), (0.25, 5)]


@pytest.mark.parametrize(("mpp", "power"), MISFITS)
def test_an_objective_that_does_not_fit_is_a_contradiction(mpp, power):
    with pytest.raises(MissingMpp, match=f"objective is {power}x") as error:
        find_mpp(aperio(mpp, power), name="a.svs")
    assert f"{mpp:g} um/px" in str(error.value)


def test_an_unusual_objective_is_noted():
    (note,) = find_mpp(aperio(0.25, 20), name="a.svs").notes
    assert "objective is 20x, which usually means about 0.5" in note
    assert find_mpp(aperio(0.25, 40), name="a.svs").notes == ()
    properties = {"openslide.vendor": "mirax", "openslide.objective-power": "20"}
    properties |= {"openslide.mpp-x": "0.2325", "openslide.mpp-y": "0.2325"}
    assert find_mpp(properties, name="a.mrxs").notes == ()  # with an adapter of 1.6x


def test_claims_that_contradict_each_other_are_listed():
    properties = aperio(
        0.499, 20, 1e4 / 0.998, line="2220x2967 (256x256) JPEG/RGB", size=(1110, 1483)
    )
    with pytest.raises(MissingMpp, match="contradict each other") as error:
        find_mpp(properties, name="half.svs")
    for part in ("aperio.MPP say 0.499", "tiff.XResolution says 0.998", "resized by 0.5", "--mpp"):
        assert part in str(error.value)
    found = find_mpp(properties, name="half.svs", given=0.998)
    assert (found.value, found.source) == (0.998, "given")
    assert "aperio.MPP say 0.499" in found.notes[0]


def test_claims_up_to_five_percent_apart_are_one():
    assert find_mpp(aperio(0.5, 20, 1e4 / 0.52), name="a.svs").value == 0.5
    with pytest.raises(MissingMpp, match="contradict"):
        find_mpp(aperio(0.5, 20, 1e4 / 0.53), name="a.svs")


@pytest.mark.parametrize("per_cm", [28.35, 37.8, 118.11, 1, 236.22])
def test_the_resolution_of_a_screen_is_no_contradiction_and_is_recorded(per_cm):
    found = find_mpp(aperio(0.499, 20, per_cm), name="a.svs")
    assert found.value == 0.499
    assert len(found.claims) == 3
    assert "tiff.XResolution" in found.notes[0]


@pytest.mark.parametrize(
    ("line", "size", "refused"),
    [
        ("2220x2967 (256x256) JPEG", (1110, 1483), True),
        ("46000x32914 [0,0,46000x32914] (256x256) JPEG", (23000, 16457), True),
        ("46000x32914 [42673,5576 2220x2967] (240x240) JPEG", (2220, 2967), False),
        ("152855x79623 [0,0,152855x79623] (256x256) JPEG", (152855, 79623), False),
        ("2220x2967 (256x256) JPEG", (1110, 2967), False),  # a crop keeps its scale
    ],
)
def test_a_resized_copy_that_keeps_its_description_is_refused(line, size, refused):
    properties = aperio(0.25, 40, line=line, size=size)
    if refused:
        with pytest.raises(MissingMpp, match=r"resized by 0\.5.*would be 0\.5"):
            find_mpp(properties, name="a.svs")
    else:
        assert find_mpp(properties, name="a.svs").value == 0.25


def test_slides_longer_than_their_glass_are_refused():
    with pytest.raises(MissingMpp, match="500 mm long"):
        find_mpp(aperio(0.5, size=(1_000_000, 1000)), name="a.svs")


OME = '<Pixels SizeX="{size}" SizeY="{size}" PhysicalSizeX="{x}" PhysicalSizeY="{x}" {unit}/>'


@pytest.mark.parametrize(
    ("x", "unit", "mpp"),
    [
        ("0.25", "", 0.25),
        ("250", "nm", 0.25),
        ("0.00025", "mm", 0.25),
        ("0.25", "µm", 0.25),
        ("0.25", "\u03bcm", 0.25),  # the Greek letter
        ("0.25", "&#181;m", 0.25),
        ("0.25", "\u00c2\u00b5m", 0.25),  # UTF-8 read as Latin-1
        ("1", "pixel", None),
        ("no", "", None),
    ],
)
def test_ome_xml_is_read_with_its_unit(x, unit, mpp):
    units = f'PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"' if unit else ""
    claims = of_description(OME.format(size=100, x=x, unit=units), None, None)
    assert [c.x for c in claims] == ([pytest.approx(mpp)] if mpp else [])


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("micron", 4, 0.25),
        ("um", 2, 0.5),
        ("\\u00B5m", 2, 0.5),
        ("mm", 2000, 0.5),
        ("cm", 20000, 0.5),
        ("pixel", 1, None),
    ],
)
def test_imagej_states_the_unit_of_the_resolution(unit, per_unit, mpp):
    claims = of_description(f"ImageJ=1.54f\nunit={unit}\nloop=false\n", per_unit, per_unit)
    assert [c.x for c in claims] == ([pytest.approx(mpp)] if mpp else [])


def test_every_property_that_names_a_scale_is_read():
    spacing = "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing"
    volume = {"dicom.ImagedVolumeWidth": "1.1", "dicom.ImagedVolumeHeight": "2.2"}
    volume |= {"dicom.TotalPixelMatrixColumns": "2200", "dicom.TotalPixelMatrixRows": "4400"}
    for properties in (
        {f"{spacing}[0]": "0.0005", f"{spacing}[1]": "0.0005"},
        {"philips.DICOM_PIXEL_SPACING": '"0.0005" "0.0005"'},
        {"mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_" + side: "0.5" for side in "XY"},
        {"ventana.ScanRes": "0.5"},
        volume,
    ):
        assert find_mpp(properties, name="a").value == pytest.approx(0.5)
        both = properties | {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}
        with pytest.raises(MissingMpp, match="contradict"):
            find_mpp(both, name="a")
    default = volume | {"dicom.ImagedVolumeWidth": "15", "dicom.ImagedVolumeHeight": "15"}
    with pytest.raises(MissingMpp, match="does not say"):
        find_mpp(default, name="a")


def test_trestle_and_ventana_use_the_tags_differently():
    properties = {
        "openslide.mpp-x": "0.465",
        "openslide.mpp-y": "0.465",
        "tiff.ResolutionUnit": "inch",
    }
    properties |= {"tiff.XResolution": "2000", "tiff.YResolution": "2000"}  # 12.7 um/px
    for vendor in ("trestle", "ventana"):
        assert find_mpp(properties | {"openslide.vendor": vendor}, name="a").value == 0.465


@pytest.mark.parametrize("given", ["0.25", math.nan, math.inf, 0, -1, True, 1000, np.array([0.25])])
def test_a_given_scale_is_a_number_in_range(given):
    with pytest.raises(ConfigError, match="micrometres per pixel"):
        find_mpp({}, name="a.svs", given=given)


@pytest.mark.parametrize("setting", ["mpp", "target_mpp"])
@pytest.mark.parametrize("value", ["0.5", math.nan, 0])
def test_settings_take_scales_only(setting, value):
    with pytest.raises(ConfigError, match=f"{setting}="):
        Settings(**{setting: value})


def test_numbers_of_numpy_may_be_given():
    assert find_mpp({}, name="a.svs", given=np.float32(0.5)).value == 0.5


def test_a_given_scale_that_overrules_the_file_is_noted():
    properties = aperio(0.25, 40)
    assert find_mpp(properties, name="a.svs", given=0.252).notes == ()
    (note,) = find_mpp(properties, name="a.svs", given=0.5).notes
    assert "openslide.mpp-x and aperio.MPP say 0.25" in note


def test_coarse_slides_and_other_scales_are_noted():
    assert scale_notes(0.25, 0.5) == []
    assert scale_notes(0.52, 0.5, 0.5) == []
    (note,) = scale_notes(0.998, 0.5)
    assert "enlarged 2 times" in note
    (note,) = scale_notes(0.25, 1.0, 0.5)
    assert "trained at 0.5" in note


def test_sizes_and_powers_of_descriptions():
    assert described_size("Aperio Image\r\n2220x2967 -> 574x768 - |AppMag = 20") == (574, 768)
    assert described_size("2220x2967") is None
    assert described_size(OME.format(size=512, x=1, unit="")) == (512, 512)
    assert power_in("a|AppMag = 20|b") == 20
    assert power_in('<Objective NominalMagnification="40.0"/>') == 40


@pytest.mark.parametrize(
    "text",
    [
        "<Pixels " + "a" * 100_000,
        "9" * 100_000,
        "Aperio\n" + "[1" * 100_000,
        "|MPP = " + "." * 10_000,
    ],
)
def test_damaged_descriptions_give_no_claims(text):
    assert of_description(text, None, None) == []
    assert described_size(text) is None


def write(path, *pages):
    path.write_bytes(tiff(*pages))
    return path


def test_the_scale_of_a_tiff_that_is_not_a_slide(tmp_path):
    path = tmp_path / "a.tif"
    for per_unit, unit, mpp in ((20_000, "centimeter", 0.5), (100_000, "inch", 0.254)):
        write(path, page(448, 448, resolution=per_unit, unit=unit))
        assert image_scale(path).value == mpp
    described = page(448, 448, description=OME.format(size=448, x=0.3, unit=""))
    assert image_scale(write(path, described)).source == "OME-XML PhysicalSizeX"
    imagej = page(448, 448, resolution=4, unit="none", description="ImageJ=1.54f\nunit=micron\n")
    assert image_scale(write(path, imagej)).value == 0.25


@pytest.mark.parametrize("dpi", [1, 72, 96, 150, 300, 600])
def test_the_resolution_of_a_screen_in_a_tiff_is_ignored(tmp_path, dpi):
    path = tmp_path / "a.tif"
    assert image_scale(write(path, page(448, 448, resolution=dpi, unit="inch"))) is None
    assert image_scale(write(path, page(448, 448))) is None


def test_a_tiff_with_a_wrong_unit_or_contradictions_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    with pytest.raises(MissingMpp, match=r"says 4\.99 um/px.*it is 0\.499") as error:
        image_scale(write(path, page(448, 448, resolution=1e4 / 4.99, unit="centimeter")))
    assert isinstance(error.value, SlideError)
    half = page(448, 448, resolution=20_000, unit="centimeter")
    half[270] = OME.format(size=448, x=0.25, unit="")
    with pytest.raises(MissingMpp, match="contradict"):
        image_scale(write(path, half))


@pytest.mark.parametrize(
    ("suffix", "mpp", "accepted"),
    [
        ("png", 0.5, True),
        ("png", 4.99, False),
        ("png", 0.0499, False),
        ("png", 352.8, False),
        ("jpg", 0.5, True),
        ("jpg", 4.99, False),
        ("jpg", 352.8, False),
    ],
)
def test_png_and_jpeg_count_where_a_microscope_wrote_them(tmp_path, suffix, mpp, accepted):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, dpi=(25_400 / mpp,) * 2)
    found = image_scale(path)
    assert (found.value if found else None) == (pytest.approx(mpp, rel=1e-3) if accepted else None)


def test_files_without_a_scale_have_none(tmp_path):
    for name, data in {"a.png": b"no image", "b.jpg": b"", "c.tif": b"II*\0"}.items():
        (tmp_path / name).write_bytes(data)
        assert image_scale(tmp_path / name) is None
    assert image_scale(tmp_path / "gone.png") is None
    assert image_scale(str(tmp_path)) is None


def test_all_implausible_claims_are_listed_together():
    with pytest.raises(MissingMpp, match=r"openslide\.mpp-x and tiff\.XResolution say 352\.8"):
        find_mpp(tags(72, "inch"), name="a.tif")

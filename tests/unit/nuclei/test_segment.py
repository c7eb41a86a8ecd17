"""Maps, instances, measurements and segmentation, on synthetic nuclei.

The bundled network where it matters.
"""

import numpy as np
import pytest
from synthetic_nuclei import tissue

import pathencoder
from pathencoder import metrics, stain
from pathencoder.errors import ConfigError, ImageError, IncompatibleWeights
from pathencoder.nuclei import instances, maps, prepare, segment
from pathencoder.nuclei.measure import measure
from pathencoder.nuclei.weights import load_network, save_network

pytestmark = pytest.mark.full


def double(array):
    return np.kron(array, np.ones((2, 2) + (1,) * (array.ndim - 2), array.dtype))


@pytest.mark.parametrize("kind", ["he", "ihc"])
def test_maps_are_above_zero_in_nuclei_alone(kind):
    image, labels, _ = tissue(stain=kind, positive=0.4 * (kind == "ihc"))
    found = maps.calibrate(image, kind).maps(image)
    assert found.shape == (3, *labels.shape)
    assert found.dtype == np.float32
    assert (np.mean(found, 0)[labels > 0] > 0).mean() > 0.99
    assert (np.mean(found, 0)[labels == 0] < 0).mean() > 0.97


def test_dark_positives_do_not_hide_pale_negatives():
    image, labels, brown = tissue(stain="ihc", positive=0.5)
    found = maps.calibrate(image, "ihc").maps(image).mean(0)
    negative = np.isin(labels, 1 + np.flatnonzero(~brown))
    assert 0.2 < brown.mean() < 0.8
    assert (found[negative] > 0).mean() > 0.99


def test_noise_is_not_scaled_up_to_nuclei():
    noise = np.random.default_rng(0).integers(243, 248, (80, 80, 3)).astype(np.uint8)
    assert (maps.calibrate(noise, "he").maps(noise) < 0).all()


def test_split_finds_and_separates():
    rows, columns = np.mgrid[:60, :90]
    disks = [(30, 20), (30, 31), (30, 60), (10, 80)]
    scores = np.max([6.5 - np.hypot(rows - y, columns - x) for y, x in disks], 0).astype(np.float32)
    scores[50, 5:80] = 1  # a line: no nucleus
    found = instances.split(scores)
    assert found.max() == 4
    assert len({found[y, x] for y, x in disks}) == 4
    assert found[50, 40] == 0


def test_split_of_nothing_and_of_everything():
    assert not instances.split(np.full((40, 40), -1, np.float32)).any()
    assert (instances.split(np.full((40, 40), 1, np.float32)) > 0).all()


def test_enlarge_follows_the_scores_between_pixels():
    at = (np.arange(80) + 0.5) / 2 - 0.5
    rows, columns = np.mgrid[:40, :40]
    scores = (9.3 - np.hypot(rows - 20, columns - 20)).astype(np.float32)
    found = instances.enlarge(instances.split(scores), scores, at, at)
    truth = np.hypot(at[:, None] - 20, at[None] - 20) <= 9.3
    assert metrics.dice(truth, found) > 0.995


@pytest.mark.parametrize("strip", [7, 1024])
def test_measurements_of_known_shapes(monkeypatch, strip):
    labels = np.zeros((60, 80), np.int32)
    labels[10:20, 10:30] = 1
    rows, columns = np.mgrid[:60, :80]
    labels[np.hypot(rows - 40, columns - 60) <= 10] = 2
    image = np.full((60, 80, 3), 255, np.uint8)
    image[labels == 2] = (100, 80, 160)
    monkeypatch.setattr("pathencoder.nuclei.measure._STRIP", strip)
    found = measure(labels, image, mpp=0.5, stain="he")
    assert (found.x[0], found.y[0], found.area[0], found.area_um2[0]) == (20, 15, 200, 50)
    assert found.eccentricity[0] == pytest.approx(np.sqrt(1 - (100 / 400)), abs=1e-3)
    assert found.eccentricity[1] < 0.1
    assert found.hematoxylin[0] == pytest.approx(0, abs=1e-6)
    assert found.hematoxylin[1] > 0.1
    assert found.dab is None


@pytest.mark.parametrize(
    ("kind", "mpp", "factor"), [("he", 0.25, 2), ("he", 0.5, 1), ("ihc", 0.25, 2)]
)
def test_synthetic_nuclei_are_found_at_two_scales(kind, mpp, factor):
    image, labels, brown = tissue(stain=kind, positive=0.4 * (kind == "ihc"))
    if factor == 2:
        image, labels = double(image), double(labels)
    found = pathencoder.segment_nuclei(image, mpp=mpp)
    assert found.stain.stain == kind
    assert found.labels.shape == labels.shape
    scores = metrics.instance_scores(labels, found.labels)
    assert scores.f1 > 0.95
    assert scores.aji > 0.75
    if kind == "ihc":
        assert found.positive_fraction == pytest.approx(brown.mean(), abs=0.01)
    else:
        assert found.positive_fraction is None


def test_an_object_of_two_stains_is_two_nuclei():
    labels = np.zeros((40, 60), np.int32)
    labels[10:30, 5:45], labels[10:20, 50:58] = 1, 2
    brown = np.zeros(labels.shape, bool)
    brown[:, :25] = True
    brown[12:14, 52:54] = True  # a speck
    found = instances.split_by_stain(labels, brown)
    assert found.max() == 3
    assert len({found[20, 10], found[20, 40], found[15, 55]}) == 3
    rim = np.zeros(labels.shape, bool)
    rim[12:28, 7:43] = True  # a brown nucleus with a pale rim
    assert instances.split_by_stain(labels, rim).max() == 2


def test_positive_is_what_is_brown_on_a_dark_and_on_a_pale_scanner():
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 5:15], labels[5:15, 25:35] = 1, 2
    for strength in (0.35, 1.0):
        density = np.zeros((20, 40, 3))
        density[labels == 1] = strength * (
            0.7 * np.array(stain.VECTORS["dab"]) + 0.1 * np.array(stain.VECTORS["hematoxylin"])
        )
        density[labels == 2] = strength * (
            0.1 * np.array(stain.VECTORS["dab"]) + 0.8 * np.array(stain.VECTORS["hematoxylin"])
        )
        image = np.clip(255 * 10**-density, 0, 255).astype(np.uint8)
        assert measure(labels, image, mpp=0.5, stain="ihc").positive.tolist() == [True, False]


@pytest.mark.parametrize("kind", ["he", "ihc"])
def test_a_field_in_glass_gives_the_nuclei_of_the_field(kind):
    field, _, _ = tissue((300, 300), nuclei=90, stain=kind, positive=0.4 * (kind == "ihc"))
    glass = np.random.default_rng(0).integers(243, 249, (900, 900, 3)).astype(np.uint8)
    glass[300:600, 300:600] = field
    alone = pathencoder.segment_nuclei(field, mpp=0.5, stain=kind)
    amid = pathencoder.segment_nuclei(glass, mpp=0.5, stain=kind)
    assert len(amid) == len(alone)
    assert amid.table.area.sum() == pytest.approx(alone.table.area.sum(), rel=0.03)
    thresholds = [[s.threshold for s in maps.calibrate(i, kind).scales] for i in (field, glass)]
    np.testing.assert_allclose(*thresholds, atol=0.02)


def test_objects_too_large_for_nuclei_are_noted():
    image, _, _ = tissue((300, 300), nuclei=30)
    assert not any("larger than" in n for n in pathencoder.segment_nuclei(image, mpp=0.5).notes)
    found = pathencoder.segment_nuclei(image, mpp=1.6)
    assert any("too coarse" in n for n in found.notes)
    large, _, _ = tissue((300, 300), nuclei=6, radius=30)
    found = pathencoder.segment_nuclei(large, mpp=0.5)
    assert any("objects are larger than 250 um2" in n for n in found.notes)


def test_tiles_leave_no_seam():
    image, _, _ = tissue((420, 500), nuclei=130)
    whole = segment.segment_nuclei(image, mpp=0.5)
    tiled = segment.segment_nuclei(image, mpp=0.5, tile=90)
    assert abs(len(whole) - len(tiled)) <= 1
    scores = metrics.instance_scores(whole.labels, tiled.labels)
    assert scores.f1 > 0.99
    assert scores.aji > 0.99


def test_brown_cells_are_not_taken_for_nuclei():
    image, labels, _ = tissue((240, 300), nuclei=40)
    density = np.zeros((*labels.shape, 3))
    # cytoplasm of a whole epithelium, and stroma next to it
    density[:, 60:] = 0.5 * np.array(stain.VECTORS["dab"])
    density += 0.02 + 0.4 * (labels > 0)[..., None] * np.array(stain.VECTORS["hematoxylin"])
    image = np.clip(
        255 * 10 ** -(density + np.random.default_rng(0).normal(0, 0.01, density.shape)), 0, 255
    ).astype(np.uint8)
    found = pathencoder.segment_nuclei(image, mpp=0.5)
    assert any("fills cells" in n for n in found.notes)
    assert metrics.instance_scores(labels, found.labels).f1 > 0.9
    # nuclear DAB, however dense, is another thing
    dense, _, _ = tissue((240, 300), nuclei=400, stain="ihc", positive=1.0, apart=1.0)
    assert maps.calibrate(dense, "ihc").within is None


def test_strips_make_no_difference(monkeypatch):
    image, _, _ = tissue((420, 300), nuclei=60)
    sizes = (0.25, 0.37, 0.8)
    whole = [prepare.to_working(image, mpp) for mpp in sizes]
    found = segment.segment_nuclei(image, mpp=0.5)
    monkeypatch.setattr(prepare, "STRIP", 50)
    for mpp, expected in zip(sizes, whole, strict=True):
        difference = np.abs(prepare.to_working(image, mpp).astype(int) - expected)
        assert difference.max() <= 1
    assert (segment.segment_nuclei(image, mpp=0.5).labels == found.labels).all()


def test_a_large_image_is_calibrated_on_blocks_of_it(monkeypatch):
    image, _, _ = tissue((600, 700), nuclei=200)
    whole = maps.calibrate(image, "he")
    monkeypatch.setattr(maps, "_ENOUGH", 200_000)
    monkeypatch.setattr(maps, "_BLOCK", 64)
    assert maps._spread(image).shape[0] * maps._spread(image).shape[1] <= 200_000
    for a, b in zip(whole.scales, maps.calibrate(image, "he").scales, strict=True):
        assert a.threshold == pytest.approx(b.threshold, rel=0.1)


def test_estimated_hematoxylin_is_weighted_by_agreement_and_separability():
    rng = np.random.default_rng(0)
    nuclei = rng.random(20_000) < 0.2
    published, similar, other = (
        np.where(nuclei, 0.8, 0.2) + rng.normal(0, s, 20_000) for s in (0.1, 0.1, 9)
    )
    evenly = published + rng.uniform(-1, 1, 20_000)

    def trust(own):
        own = own.astype(np.float32)
        return maps._trust(
            published,
            own,
            (maps._measure(published), maps._measure(own, least=-np.inf), maps._measure(published)),
        )

    assert trust(similar) == 1
    assert trust(-published) == trust(other) == 0
    assert trust(evenly) < 0.7


def test_blood_and_a_tinted_background_are_no_nuclei():
    image, labels, _ = tissue((240, 300), nuclei=30)
    image = (image * np.array([0.72, 0.66, 0.86])).astype(np.uint8)
    free = labels[:, :60] == 0
    image[:, :60][free] = np.random.default_rng(0).integers(
        (190, 15, 45), (210, 35, 75), (*free.shape, 3)
    )[free]
    calibration = maps.calibrate(image, "he")
    assert calibration.own < 0.5
    found = pathencoder.segment_nuclei(image, mpp=0.5, stain="he")
    assert metrics.instance_scores(labels, found.labels).f1 > 0.9


def test_nuclei_within_a_box():
    image, _, _ = tissue()
    found = pathencoder.segment_nuclei(image, mpp=0.5)
    kept = found.within((0, 0, 100, 80))
    inside = (found.table.x < 100) & (found.table.y < 80)
    assert 0 < len(kept) == inside.sum() < len(found)
    assert set(np.unique(kept.labels)) == set(range(len(kept) + 1))
    assert (kept.table.area == found.table.area[inside]).all()
    assert (kept.labels > 0).sum() == kept.table.area.sum()


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_unknown_scale_is_guessed_from_large_nuclei(factor):
    image, labels, _ = tissue((160, 200), radius=7)  # the usual size at 0.5
    one = np.ones((factor, factor), np.uint8)
    image, labels = np.kron(image, one[..., None]), np.kron(labels, one)
    found = pathencoder.segment_nuclei(image)
    assert found.mpp == (0.25 if factor == 2 else pytest.approx(0.5 / factor, rel=0.25))
    assert f"{found.mpp} assumed" in found.notes[0]
    assert metrics.instance_scores(labels, found.labels).f1 > 0.95


def test_an_image_full_of_nuclei():
    image, _, _ = tissue(nuclei=200, apart=1.0)
    found = pathencoder.segment_nuclei(image, mpp=0.5)
    assert len(found) > 40
    solid = np.tile(np.array([90, 60, 140], np.uint8), (200, 200, 1))
    # one nucleus everywhere, if any
    solid += np.random.default_rng(0).integers(0, 6, solid.shape, np.uint8)
    assert pathencoder.segment_nuclei(solid, mpp=0.25).labels.shape == (200, 200)


def test_an_unknown_scale_is_noted():
    image, _, _ = tissue()
    found = pathencoder.segment_nuclei(double(image))
    assert found.mpp == 0.25
    assert "0.25 assumed" in found.notes[0]
    assert not pathencoder.segment_nuclei(double(image), mpp=0.25).notes


@pytest.mark.parametrize("value", [0, 130, 250])
def test_a_blank_image_has_no_nuclei(value):
    found = pathencoder.segment_nuclei(np.full((300, 300, 3), value, np.uint8), mpp=0.25)
    assert len(found) == 0
    assert not found.labels.any()
    assert "no tissue found" in found.notes


def test_a_grey_image_is_segmented_with_a_note():
    image, labels, _ = tissue()
    grey = np.repeat(double(image).mean(2, keepdims=True), 3, 2).astype(np.uint8)
    found = pathencoder.segment_nuclei(grey, mpp=0.25)
    assert any("no colour" in n for n in found.notes)
    assert metrics.instance_scores(double(labels), found.labels).f1 > 0.9


def test_fluorescence_and_bad_settings_are_refused():
    image, _, _ = tissue()
    with pytest.raises(ImageError, match="fluorescence"):
        pathencoder.segment_nuclei(255 - np.maximum(image, 200), mpp=0.25)
    with pytest.raises(ConfigError, match="mpp 25"):
        pathencoder.segment_nuclei(image, mpp=25)
    with pytest.raises(ConfigError, match="he, ihc"):
        pathencoder.segment_nuclei(image, stain="pas")


@pytest.mark.parametrize("mpp", ["0.25", float("nan"), True, [0.25], 0, np.array([0.25, 0.5])])
def test_a_scale_that_is_no_number_is_refused(mpp):
    with pytest.raises(ConfigError, match=r"between 0\.05 and 2"):
        pathencoder.segment_nuclei(tissue()[0], mpp=mpp)


def test_the_network_may_be_a_folder(tmp_path):
    image, _, _ = tissue()
    save_network(tmp_path / "net", load_network(), {"seed": 1})
    expected = pathencoder.segment_nuclei(image, mpp=0.5).labels
    for folder in (tmp_path / "net", str(tmp_path / "net")):
        assert (pathencoder.segment_nuclei(image, mpp=0.5, network=folder).labels == expected).all()
    with pytest.raises(ConfigError, match="holds no nuclei network"):
        pathencoder.segment_nuclei(image, mpp=0.5, network=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="give a NucleiNetwork"):
        pathencoder.segment_nuclei(image, mpp=0.5, network=3)


@pytest.mark.parametrize("tile", [0, -5, 3.5, "big", True])
def test_invalid_tile_sizes_are_refused(tile):
    with pytest.raises(ConfigError, match="at least 32"):
        pathencoder.segment_nuclei(tissue()[0], mpp=0.5, tile=tile)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.full((9, 9, 3), np.nan),
        np.zeros((0, 5, 3), np.uint8),
        np.array(["a.png"]),
        7,
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ImageError):
        pathencoder.segment_nuclei(image, mpp=0.5)


@pytest.mark.parametrize("size", [(1, 1), (20, 20), (7, 200)])
def test_small_images(size):
    image, _, _ = tissue()
    found = pathencoder.segment_nuclei(image[: size[0], : size[1]], mpp=0.25)
    assert found.labels.shape == size


def test_weights_are_read_again(tmp_path):
    network = load_network()
    save_network(tmp_path / "net", network, {"seed": 1})
    again = load_network(tmp_path / "net")
    assert all(
        (a == b).all()
        for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    (tmp_path / "net" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(IncompatibleWeights, match="copy the network again"):
        load_network(tmp_path / "net")
    with pytest.raises(ConfigError, match="holds no nuclei network"):
        load_network(tmp_path)

"""The other protocols of eva on made-up copies: few shots, masks, slides."""

import dataclasses

import numpy as np
import pytest
import small_encoders
import small_sets
import torch
from click.testing import CliRunner
from small_slides import section, write_tiff

from pathencoder.errors import ConfigError
from training import evaluate
from training.evaluation.eva import monusac, panda, segmentation, sets, slide_head
from training.evaluation.eva.segmentation import Masked, dice_loss, mean_dice
from training.evaluation.eva.slide_head import Bags
from training.evaluation.report_file import read_report

pytestmark = pytest.mark.full


def measured(tmp_path, monkeypatch, name, folder, *options, status=0, **changes):
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "enc")
    monkeypatch.setitem(sets.BY_NAME, name, dataclasses.replace(sets.BY_NAME[name], **changes))
    arguments = ["eva", f"mine={tmp_path / 'enc'}", "--set", f"{name}={folder}"]
    arguments += ["--out", tmp_path / "out", "--imagenet", tmp_path / "none", *options]
    done = CliRunner().invoke(evaluate.main, [str(a) for a in arguments])
    assert done.exit_code == status, done.output
    return read_report(tmp_path / "out/evaluation.json"), done.output


# 10 shots


def test_ten_tiles_of_each_class_are_drawn_with_the_seed_of_eva():
    labels = ["b", *"a" * 40, *"b" * 39]
    chosen = sets.drawn(labels)
    rng = np.random.default_rng(42)
    first = rng.choice([0, *range(41, 80)], size=10, replace=False)  # the class that occurs first
    second = rng.choice(np.arange(1, 41), size=10, replace=False)
    assert chosen == [*first, *second]
    with pytest.raises(ConfigError, match="2 training tiles of a; 10 are drawn"):
        sets.drawn(["a", "a"])


def test_only_the_drawn_tiles_are_trained_on(tmp_path):
    found = sets.read_pcam_10_shots(small_sets.pcam(tmp_path, images=40))
    assert found.counts() == {"train": 20, "val": 40, "test": 40}
    train = [n for n, p in zip(found.labels, found.parts, strict=True) if p == "train"]
    assert sorted(train) == ["normal"] * 10 + ["tumour"] * 10
    assert "10 of 40 tiles, in eva of 262,144" in found.notes[1]


def test_ten_shots_by_the_command(tmp_path, monkeypatch):
    folder = small_sets.pcam(tmp_path / "pcam", images=24)
    report, text = measured(
        tmp_path, monkeypatch, "patch_camelyon_10_shots", folder, patience=1, runs=2
    )
    found = report.find(encoder="mine")
    assert {(r.part, r.seeds, r.n) for r in found} == {("val", 2, 24), ("test", 2, 24)}
    assert "no column for it" in text
    assert "(published)" not in text


# Masks


def test_monusac_has_its_parts_and_masks(tmp_path):
    small_sets.monusac(tmp_path, kinds=("Epithelial", "Unclear"))
    found = monusac.read_monusac(tmp_path)
    assert found.counts() == {"train": 3, "val": 2}
    assert len(found.files) == 10
    mask = monusac.mask_of(found.images[0], (48, 60))
    assert np.bincount(mask.ravel(), minlength=6)[[1, 5]].tolist() == [400, 400]
    assert (mask[10, 10], mask[10, 40], mask[40, 10]) == (1, monusac.AMBIGUOUS, 0)


def test_an_incomplete_copy_of_monusac_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no \.tif below MoNuSAC_images.*grand-challenge"):
        monusac.read_monusac(tmp_path)
    small_sets.monusac(tmp_path)
    (tmp_path / small_sets.MONUSAC[1] / "TCGA-1/TCGA-1_1.xml").unlink()
    with pytest.raises(ConfigError, match=r"1 of 5 images have no outlines .*TCGA-1_1\.xml"):
        monusac.read_monusac(tmp_path)


def test_dice_is_the_mean_of_the_classes_that_an_image_has():
    true = torch.tensor([[1, 1, 2, 2], [0, 0, 5, 0]])
    predicted = torch.tensor([[1, 1, 2, 0], [0, 3, 2, 0]])
    # class 1: 1; class 2: 2 * 1 / (2 + 2), the ambiguous pixel is a false positive; 3: left out
    assert mean_dice([(predicted, true)], 5) == pytest.approx(0.75)
    empty = torch.zeros(2, 4, dtype=torch.int64)
    assert mean_dice([(predicted, true), (predicted, empty)], 5) == pytest.approx(0.75)


def test_ambiguous_pixels_are_not_learned():
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    mask = torch.randint(0, 5, (2, 4, 4))
    mask[:, 0] = 5
    dice_loss(logits, mask).backward()
    assert (logits.grad[:, :, 0] == 0).all()
    assert (logits.grad[:, :, 1:] != 0).any()
    perfect = torch.nn.functional.one_hot(torch.randint(0, 5, (2, 4, 4)), 5).movedim(-1, 1)
    assert dice_loss(100.0 * perfect, perfect.argmax(1)) == pytest.approx(0, abs=1e-4)


def test_crops_are_those_of_torchvision():
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, left, height, width = segmentation.box(300, 400, rng)
        assert 0 <= top <= 300 - height
        assert 0 <= left <= 400 - width
        assert 0.07 < height * width / (300 * 400) <= 1
        assert 0.73 < width / height < 1.36
    long = [segmentation.box(10, 1000, rng) for _ in range(50)]
    assert (0, 493, 10, 13) in long  # no such crop fits: the middle


def test_the_decoder_learns_what_the_image_shows(monkeypatch):
    """Dark squares are class 1: the image joins the maps of a random encoder."""
    monkeypatch.setattr(segmentation, "SIDE", 64)  # time
    rng, masked = np.random.default_rng(0), []
    for _ in range(4):
        pixels = rng.integers(180, 255, (3, 80, 64), np.uint8)
        mask = np.zeros((80, 64), np.uint8)
        mask[16:48, 8:40] = 1
        pixels[:, mask == 1] //= 6
        masked.append(Masked(torch.from_numpy(pixels), torch.from_numpy(mask)))
    encoder = small_encoders.encoder("cnn").eval()
    val = segmentation.validation(encoder, masked)
    assert val.batches[0][1].shape == (4, 3, 64, 64)
    found = segmentation.fit(encoder, masked, val, 2, patience=20, seed=0, steps=10)
    assert found > 0.8


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_maps_are_those_of_the_last_block(kind):
    encoder = small_encoders.encoder(kind).eval()
    maps = segmentation._maps(encoder, torch.randn(2, 3, 64, 64))
    assert maps.ndim == 4
    assert not maps.requires_grad
    if kind == "vit":
        normed = encoder.network.norm(maps.flatten(2).transpose(1, 2))
        assert normed.shape[-1] == encoder.spec.width


def test_masks_by_the_command(tmp_path, monkeypatch):
    folder = small_sets.monusac(tmp_path / "monusac")
    monkeypatch.setattr(segmentation, "SIDE", 64)
    monkeypatch.setattr(segmentation.fit, "__kwdefaults__", {"steps": 2})
    report, text = measured(
        tmp_path, monkeypatch, "monusac", folder, "--runs", 2, expected={"train": 3, "val": 2}
    )
    (mine,) = report.find(encoder="mine")
    assert (mine.metric, mine.part, mine.seeds, mine.n) == ("eva_dice", "val", 2, 2)
    assert "no published row stands beside: 2 runs, in eva 5" in text


# Slides


def test_the_parts_of_panda_are_those_of_eva(tmp_path):
    """As its splitting draws them: by grade, a share each, one generator of seed 42."""
    grades = [str(n % 3) for n in range(120)]
    parts = panda.parts_of(grades)
    rng = np.random.default_rng(42)
    for grade in range(3):
        order = np.array([i for i in range(120) if i % 3 == grade])
        rng.shuffle(order)
        of_grade = {name: [i for i in parts[name] if i % 3 == grade] for name in parts}
        assert of_grade["train"] == order[:4].tolist()
        assert of_grade["val"] == order[4:6].tolist()
        assert of_grade["test"] == order[6:8].tolist()


def test_an_incomplete_copy_of_panda_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train_with_noisy_labels\.csv is missing\. Save https"):
        panda.read_panda(tmp_path)
    small_sets.panda(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks 9 of the 9 slides .*kaggle competitions"):
        panda.read_panda(tmp_path)


def test_slides_marked_by_0_are_left_out(tmp_path):
    names = small_sets.panda(tmp_path, slides=600)
    kept = [int(names[n], 16) for n in range(600) if n % 10]
    for n in kept:
        (tmp_path / "train_images" / f"{n:032x}.tiff").touch()
    found = panda.read_panda(tmp_path)
    assert found.counts() == {"train": 54, "val": 27, "test": 27}
    assert not [f for f in found.images if int(f.stem, 16) % 10 == 0]


def test_tiles_are_on_a_grid_where_there_is_tissue(tmp_path):
    pixels = section(1200, 900, tissue=((0, 0, 460, 450),))
    file = write_tiff(tmp_path / "a.tiff", pixels, mpp=0.5, levels=(1, 4))
    tiles = panda.tiles_of(file)
    assert {tile.shape for tile in tiles} == {(224, 224, 3)}
    corners = {(x, y) for x in (0, 224) for y in (0, 224)}
    assert len(tiles) == len(corners)
    cut = [pixels[y : y + 224, x : x + 224] for x, y in corners]
    assert all(any((tile == one).all() for one in cut) for tile in tiles)


def test_tiles_are_read_at_the_scale_of_the_slide(tmp_path):
    file = write_tiff(tmp_path / "a.tiff", section(1200, 900), mpp=0.25, levels=(1, 4))
    assert {tile.shape for tile in panda.tiles_of(file)} == {(448, 448, 3)}


def test_saturation_is_that_of_opencv():
    pixels = np.array([[[255, 255, 255], [200, 100, 50], [0, 0, 0], [255, 0, 0], [37, 36, 35]]])
    assert panda.saturation(pixels.astype(np.uint8)).tolist() == [[0, 191, 0, 255, 14]]


def bags(n, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = [rng.normal(size=(rng.integers(2, 9), 12)).astype(np.float32) for _ in range(n)]
    for one, label in zip(x, y, strict=True):
        one[0, 0] += 8 * label  # one tile of a slide shows it
    return Bags(x, y)


def test_attention_learns_what_one_tile_shows():
    parts = {name: bags(60, seed) for seed, name in enumerate(("train", "val", "test"))}
    found = slide_head.fit(parts, 2, patience=20, seed=0, epochs=40)
    assert found.keys() == {"val", "test"}
    assert found["test"] > 0.9
    assert found == slide_head.fit(parts, 2, patience=20, seed=0, epochs=40)


def test_padding_does_not_change_a_slide():
    head = slide_head.Attention(12, 3).eval()
    short, long = (bags(2, seed).x[0] for seed in (1, 2))
    alone = head(*slide_head.padded([short]))
    beside = head(*slide_head.padded([short, np.concatenate([long] * 4)]))
    torch.testing.assert_close(alone[0], beside[0])


def panda_with_slides(root):
    """A copy with slides of 300 px of tissue."""
    for n, name in enumerate(small_sets.panda(root)):
        tissue = ((0, 0, 300 + 10 * (n % 4), 300),)
        write_tiff(root / f"train_images/{name}.tiff", section(480, 480, tissue=tissue, seed=n))
    return panda.read_panda(root)


def test_slides_by_the_command(tmp_path, monkeypatch):
    found = panda_with_slides(tmp_path / "panda")
    train = [f for f, part in zip(found.images, found.parts, strict=True) if part == "train"]
    train[0].write_bytes(b"II*\0 damaged")
    write_tiff(train[1], section(480, 480, tissue=()))
    report, text = measured(
        tmp_path, monkeypatch, "panda_small", tmp_path / "panda", runs=2, patience=1,
        expected=found.counts(),
    )  # fmt: skip
    mine = {r.part: r for r in report.find(encoder="mine")}
    assert {(part, r.n, r.seeds) for part, r in mine.items()} == {("val", 2, 2), ("test", 2, 2)}
    assert found.counts() == {"train": 5, "val": 2, "test": 2}
    assert "no published row stands beside: 1 slides cannot be read" in text
    assert "1 slides without tissue are left out" in text
    again, _ = measured(
        tmp_path, monkeypatch, "panda_small", tmp_path / "panda", runs=2, patience=1,
        expected=found.counts(),
    )  # fmt: skip
    assert again.results == report.results

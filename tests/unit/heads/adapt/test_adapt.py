"""One call from labelled images to an adapted encoder: comparison, files, refusals."""

import itertools
import json
import sys

import numpy as np
import pytest
import small_encoders
import small_tiles
import torch

import pathencoder
from pathencoder import compat
from pathencoder.errors import ConfigError, ImageError, MissingExtra, StoreError
from pathencoder.heads.adapt import lora, train
from pathencoder.heads.encoder_record import weights_digest
from pathencoder.verify import verify

pytestmark = pytest.mark.full


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return small_tiles.folder(tmp_path_factory.mktemp("adapt") / "tiles")


@pytest.fixture(autouse=True)
def every_epoch_is_better(monkeypatch):
    """The frozen encoder separates the small tiles: its weights would be kept."""
    real, losses = train._stop_loss, itertools.count(0, -1)
    monkeypatch.setattr(train, "_stop_loss", lambda *a: real(*a) * 0 + next(losses))


def adapt(data, encoder=None, how="lora", **settings):
    settings = {"groups": small_tiles.GROUPS, "epochs": 2, "batch": 8, "rank": 2, **settings}
    given = small_encoders.shared("cnn") if encoder is None else encoder
    return pathencoder.adapt(given, data, how, **{"progress": False, **settings})


def rows(encoder):
    return encoder.encode([small_encoders.picture(i) for i in range(3)], progress=False)


@pytest.mark.parametrize("how", ["lora", "all"])
@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_a_reload_gives_the_same_output_bit_for_bit(tiles, tmp_path, kind, how):
    parent = small_encoders.shared(kind)
    before, digest = rows(parent), weights_digest(parent)
    adapted = adapt(tiles, parent, how)
    assert adapted.report.best > 0
    assert weights_digest(parent) == digest
    assert not np.array_equal(rows(adapted.encoder), before)
    adapted.save(tmp_path / "out")
    again = pathencoder.load_encoder(tmp_path / "out", device="cpu")
    np.testing.assert_array_equal(rows(again), rows(adapted.encoder))
    assert again.spec.embedding == parent.spec.embedding
    assert verify(again).ok
    found = pathencoder.load_head(tmp_path / "out" / "head").predict(tiles, progress=False)
    mine = adapted.head.predict(tiles, progress=False)
    np.testing.assert_array_equal(found.probabilities, mine.probabilities)


@pytest.mark.parametrize("how", ["lora", "last"])
def test_where_no_epoch_is_better_the_head_is_one_of_the_parent(tiles, tmp_path, monkeypatch, how):
    small = small_encoders.encoder("cnn")
    with torch.no_grad():
        for parameter in small.network.parameters():
            parameter.view(-1)[0] = -0.0
    small.save_pretrained(tmp_path / "parent")
    parent = pathencoder.load_encoder(tmp_path / "parent", device="cpu")
    losses = itertools.count()
    monkeypatch.setattr(train, "_stop_loss", lambda *a: float(next(losses)))
    adapted = adapt(tiles, parent, how)
    assert adapted.report.best == 0
    assert weights_digest(adapted.encoder) == weights_digest(parent)
    np.testing.assert_array_equal(rows(adapted.encoder), rows(parent))
    # a file that was exported of the parent has rows that differ by rounding
    assert not adapted.encoder.origin.exports
    assert adapted.encoder.origin.folder == parent.origin.folder


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_the_adapter_file_gives_the_merged_weights_bit_for_bit(tiles, tmp_path, kind):
    parent = small_encoders.encoder(kind)
    adapted = adapt(tiles, parent)
    adapted.save(tmp_path / "out")
    compat.import_timm()
    from peft import PeftModel

    model = PeftModel.from_pretrained(parent.network, tmp_path / "out/adapter")
    merged = model.merge_and_unload().state_dict()
    for name, value in adapted.encoder.network.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=0, atol=0)
    card = (tmp_path / "out/adapter/README.md").read_text()
    assert "base_model_relation: adapter" in card
    config = json.loads((tmp_path / "out/adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"small-{kind}"
    code = card.split("```python")[1]
    assert 'load_encoder("FOLDER OF THE PARENT")' in code
    assert code.index("load_encoder(") < code.index("from peft import")


def test_the_card_names_the_parent_and_claims_nothing_of_it(tiles, tmp_path):
    stated = {"licence": "CC-BY-4.0", "verified": True, "version": "1.0"}
    small_encoders.encoder("cnn", **stated).save_pretrained(tmp_path / "parent")
    parent = pathencoder.load_encoder(tmp_path / "parent", device="cpu")
    adapted = adapt(tiles, parent, "last", stages=1)
    with pytest.raises(StoreError, match="holds the encoder that is adapted"):
        adapted.save(tmp_path / "parent")
    adapted.save(tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    for part in (
        "base_model: small-cnn\n",
        "base_model_relation: finetune",
        "license: cc-by-4.0",
        "24 labelled images of 6 groups (benign, malignant)",
        "The licence of the images that it was adapted to is not known.",
        "balanced accuracy",
    ):
        assert part in card
    spec = pathencoder.load_encoder(tmp_path / "out", device="cpu").spec
    assert (spec.name, spec.verified, spec.licence) == ("small-cnn-last", False, "CC-BY-4.0")
    assert spec.version is None
    assert "small-cnn (sha256" in spec.base_model
    assert not (tmp_path / "out/adapter").exists()
    assert json.loads((tmp_path / "out/adaptation.json").read_text())["groups"] == 6


def test_a_head_on_images_that_the_encoder_has_seen_says_so(tiles, tmp_path):
    adapted = adapt(tiles)
    adapted.save(tmp_path / "out")
    new = small_tiles.folder(tmp_path / "new", labels=("malignant", "benign"), patients=2)
    for encoder in (adapted.encoder, tmp_path / "out"):
        head = pathencoder.fit("linear", encoder, tiles, groups=small_tiles.GROUPS, progress=False)
        assert "adapted to 24 of these images" in head.report.text()
        assert "adapted to" not in head.evaluate(new, progress=False).text()
    plain = pathencoder.fit("linear", small_encoders.shared("cnn"), tiles, progress=False)
    assert "adapted to" not in plain.report.text()


def test_the_held_out_part_is_compared_with_the_frozen_head(tiles, tmp_path):
    paths = sorted(tiles.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    groups = [path.name.split("_")[0] for path in paths]
    splits = ["test" if group in ("P4", "P5") else "train" for group in groups]
    given = {"labels": labels, "groups": groups, "splits": splits}
    found = adapt(paths, evaluate="test", folds=2, **given).report
    frozen = pathencoder.fit(
        "linear", small_encoders.shared("cnn"), paths, evaluate="test", progress=False, **given
    )
    held_out = found.held_out
    assert held_out.frozen.balanced_accuracy == frozen.held_out.balanced_accuracy
    assert sum(held_out.adapted.images) == 8
    assert held_out.balanced_accuracy.low is not None
    assert held_out.probabilities.shape == (2, 8, 2)
    assert sum(found.folds.adapted.images) == 16
    text = found.text()
    for part in ("evaluated on test: 8 images", "2 folds by group", "slightly too good"):
        assert part in text
    json.dumps(found.to_json())
    steps = []
    given["labels"] = _other(labels, splits)
    with pytest.raises(ConfigError, match="the classes benign, malignant, not stroma"):
        adapt(paths, evaluate="test", progress=lambda *step: steps.append(step), **given)
    assert steps == []


def test_bad_images_of_the_held_out_part_are_found_before_training(tmp_path):
    paths = sorted(small_tiles.folder(tmp_path).rglob("*.png"))
    groups = [path.name.split("_")[0] for path in paths]
    given = {
        "labels": [path.parent.name for path in paths],
        "groups": groups,
        "splits": ["test" if group in ("P4", "P5") else "train" for group in groups],
    }
    (tmp_path / "benign/P5_0.png").write_bytes(b"no picture")
    steps = []
    with pytest.raises(ImageError, match=r"1 of 24 images cannot be read:\n.*P5_0\.png"):
        adapt(paths, evaluate="test", progress=lambda *step: steps.append(step), **given)
    assert steps == []
    held_out = adapt(paths, how="last", evaluate="test", on_error="skip", **given).report.held_out
    for report in (held_out.frozen, held_out.adapted):
        assert report.images == (3, 4)
        assert "1 images that cannot be read were left out" in report.notes[0]


def _other(labels, splits):
    return [
        "stroma" if split == "test" else label for label, split in zip(labels, splits, strict=True)
    ]


def test_without_groups_no_interval_is_claimed(tiles):
    report = adapt(tiles, groups=None).report
    assert report.groups is None
    assert report.stopping.balanced_accuracy.low is None
    assert "no groups (patients) are known" in report.text()


def test_where_no_fold_is_possible_all_epochs_are_run(tiles):
    paths = [tiles / "benign/P0_0.png", tiles / "malignant/P1_0.png", tiles / "malignant/P2_0.png"]
    report = adapt(
        paths, labels=["benign", "malignant", "malignant"], groups=[0, 1, 2], patience=1
    ).report
    assert (report.best, report.stopping) == (2, None)
    assert "nothing says whether they helped" in report.text()


def test_bad_input_is_refused_before_anything_is_trained(tiles, tmp_path, monkeypatch):
    bad = tmp_path / "bad"
    small_tiles.folder(bad)
    (bad / "benign/P0_9.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="1 of 25 images cannot be read"):
        adapt(bad)
    assert "were left out" in adapt(bad, on_error="skip").report.text()
    with pytest.raises(ConfigError, match="of one class"):
        adapt([tiles / "benign/P0_0.png"], labels=["benign"], groups=None)
    half = small_encoders.encoder("cnn").to(torch.bfloat16)
    with pytest.raises(ConfigError, match="dtype=None"):
        adapt(tiles, half)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"pathencoder\[lora\]"):
        adapt(tiles)
    assert adapt(tiles, how="last", epochs=1).adapter is None


@pytest.mark.parametrize(
    "settings",
    [
        {"how": "some"},
        {"epochs": 0},
        {"folds": 1},
        {"rate": 0},
        {"rate": float("nan")},
        {"layer_decay": 1.5},
        {"stages": 0},
        {"rank": True},
        {"weight_decay": -1},
        {"seed": -1},
        {"seed": 2**32},
        {"progress": "no"},
        {"on_error": "no"},
    ],
)
def test_settings_that_do_not_fit_are_named(tiles, settings):
    given = {"progress": False, **settings}
    with pytest.raises(ConfigError, match=f"^{next(iter(settings))}="):
        pathencoder.adapt(small_encoders.shared("cnn"), tiles, **given)


def test_adapters_leave_out_what_the_embedding_does_not_depend_on():
    whole = small_encoders.encoder("cnn")
    inner = small_encoders.encoder("cnn", embedding="stages:blocks.1", dim=_width(whole))
    plain = lora.targets(inner.network, inner.spec)
    assert plain
    assert {name.split(".")[1] for name in plain} <= {"0", "1"}
    modules = dict(whole.network.named_modules())
    everywhere = lora.targets(whole.network, whole.spec)
    assert set(plain) < set(everywhere)
    assert all(getattr(modules[name], "groups", 1) == 1 for name in everywhere)
    vit = small_encoders.encoder("vit")
    kinds = {name.rsplit(".", 1)[-1] for name in lora.targets(vit.network, vit.spec)}
    assert kinds == {"qkv", "proj", "fc1", "fc2"}


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_merging_changes_the_output_by_rounding_alone(kind):
    encoder = small_encoders.encoder(kind)
    before = rows(encoder)
    model = lora.add(encoder.network, encoder.spec, rank=2, seed=0)
    encoder.network = model
    np.testing.assert_allclose(rows(encoder), before, rtol=0, atol=1e-5 * np.abs(before).max())
    trained = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for number, parameter in enumerate(trained):
            generator = torch.Generator().manual_seed(number)
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    apart = rows(encoder)
    assert np.abs(apart - before).max() > 0.01 * np.abs(apart).max()
    encoder.network = lora.merge(model)
    np.testing.assert_allclose(rows(encoder), apart, rtol=0, atol=1e-4 * np.abs(apart).max())


def _width(encoder):
    x = torch.zeros(1, 3, small_encoders.SIZE, small_encoders.SIZE)
    from pathencoder import network

    return {path: y.shape[1] for path, y in network.walk(encoder.network, x)}["blocks.1"]

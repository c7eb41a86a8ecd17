"""A head and feature files: those of its encoder as it was, with its weights and readout."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import small_encoders
import small_tiles
import torch

import pathencoder
from pathencoder.errors import HeadMismatch
from pathencoder.features.provenance import Settings
from pathencoder.features.tiles import tiles_to_file
from pathencoder.heads.cache import FeatureCache
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.feature_files import check_rows
from pathencoder.heads.slide.record import FeatureRecord

pytestmark = pytest.mark.full


@pytest.fixture
def encoder(tmp_path):
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "encoder")
    return pathencoder.load_encoder(tmp_path / "encoder", device="cpu")


def fit(data, encoder, **settings):
    settings = {"groups": small_tiles.GROUPS, "progress": False, "c": 0.01, **settings}
    return pathencoder.fit("linear", encoder, data, **settings)


def features(encoder, tiles, file, **settings):
    images = [(path.name, path) for path in sorted(tiles.rglob("*.png"))[:2]]
    tiles_to_file(encoder, tiles, images, file, Settings(**settings))
    return pathencoder.read_features(file)


def trained_further(encoder):
    changed = copy.deepcopy(encoder)
    with torch.no_grad():
        for values in changed.network.parameters():
            values.mul_(1.5)
    return changed


def with_another_rule(encoder):
    """The same encoder with another rule of the embedding."""
    other = copy.deepcopy(encoder)
    rule = "mean" if encoder.spec.embedding != "mean" else "cls"
    other.spec = dataclasses.replace(encoder.spec, embedding=rule)
    return other


def test_a_head_on_a_changed_encoder_takes_its_features_alone(encoder, tiles, tmp_path):
    changed = trained_further(encoder)
    heads = {one: fit(tiles, one) for one in (encoder, changed)}
    files = {one: features(one, tiles, tmp_path / f"{id(one)}.h5") for one in (encoder, changed)}
    for mine, other in ((encoder, changed), (changed, encoder)):
        record = heads[mine].record
        assert check_rows(record, files[mine]) == check_rows(record, files[mine], mine) == []
        for loaded in (None, mine):
            with pytest.raises(HeadMismatch, match=r"\(weights .*, the head was fitted on"):
                check_rows(record, files[other], loaded)
    earlier = dataclasses.replace(heads[changed].record, weights=None)  # as it was recorded before
    assert check_rows(earlier, files[changed], changed) == []
    slides = FeatureRecord.of(files[changed])
    slides.check_encoder(changed, "embedding")
    with pytest.raises(HeadMismatch, match="weights"):
        slides.check_encoder(encoder, "embedding")


def test_records_of_published_encoders_are_as_before(encoder, tiles):
    head = fit(tiles, encoder)
    assert not {"weights", "readout"} & head.record.to_json().keys()
    assert not {"weights", "readout"} & head._content(for_hub=True).config["encoder"].keys()
    earlier = EncoderRecord(**head.record.to_json())
    earlier.check(encoder)
    found = FeatureCache.default().entries()
    assert len(found) == 1
    assert not {"weights", "readout"} & found[0].about.keys()


def test_another_rule_of_the_readout_is_another_encoder(tiles, tmp_path):
    small_encoders.encoder("vit").save_pretrained(tmp_path / "vit")
    encoder = pathencoder.load_encoder(tmp_path / "vit", device="cpu")
    other = with_another_rule(encoder)
    heads = {one: fit(tiles, one) for one in (encoder, other)}
    assert len(FeatureCache.default().entries()) == 2  # no rows of one are taken for the other's
    files = {one: features(one, tiles, tmp_path / f"{id(one)}.h5") for one in (encoder, other)}
    for mine, wrong in ((encoder, other), (other, encoder)):
        record = EncoderRecord(**heads[mine].record.to_json())
        record.check(mine)
        with pytest.raises(HeadMismatch, match=r"with the readout .*, not "):
            record.check(wrong)
        assert check_rows(record, files[mine]) == check_rows(record, files[mine], mine) == []
        with pytest.raises(HeadMismatch, match=r"\(readout .*, the head was fitted on"):
            check_rows(record, files[wrong])
        slides = FeatureRecord(**FeatureRecord.of(files[mine]).to_json())
        slides.check(files[mine])
        with pytest.raises(HeadMismatch, match="rule of the readout"):
            slides.check(files[wrong])
        with pytest.raises(HeadMismatch, match="rule of the readout"):
            slides.check_encoder(wrong, "embedding")
    other.save_pretrained(tmp_path / "saved")  # its rule is then the published one
    heads[other].record.check(pathencoder.load_encoder(tmp_path / "saved", device="cpu"))


@pytest.mark.parametrize(("mine", "other"), [(1, 4), (4, 1)])
def test_features_of_other_views_are_refused(encoder, tiles, tmp_path, mine, other):
    files = {v: features(encoder, tiles, tmp_path / f"{v}.h5", views=v) for v in (mine, other)}
    record = fit(tiles, encoder, views=mine).record
    assert check_rows(record, files[mine]) == []
    words = rf"\(views {other}\), the head was fitted on .* \(views {mine}\)"
    with pytest.raises(HeadMismatch, match=words):
        check_rows(record, files[other])


@pytest.mark.parametrize("fitted", [None, 0.5])
def test_images_that_were_read_at_another_scale_are_refused(encoder, tiles, tmp_path, fitted):
    record = fit(tiles, encoder, mpp=fitted).record
    read = {mpp: features(encoder, tiles, tmp_path / f"{mpp}.h5", mpp=mpp) for mpp in (None, 0.5)}
    other = 0.5 if fitted is None else None
    assert check_rows(record, read[fitted]) == []
    slide = dataclasses.replace(read[0.5], coords=np.zeros((2, 2), np.int64))
    slide.attributes["recipe"] = json.dumps(
        {**json.loads(slide.attributes["recipe"]), "target_mpp": 1.0}
    )
    notes = check_rows(dataclasses.replace(record, mpp=0.5), slide)
    assert [note.split(" ")[0] for note in notes] == (
        ["the", "tiles"] if fitted is None else ["tiles"]
    )
    with pytest.raises(HeadMismatch, match=r"resized whole.*encode them again with"):
        check_rows(record, read[other])

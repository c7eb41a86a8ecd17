"""data.mpp: crops have the same field of view whatever the scale of their tile."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from small_runs import values

from pathencoder.errors import ConfigError
from pathencoder.pretrained.folder import read_spec
from training import config
from training.data.corpus import open_corpus
from training.data.loader import batches
from training.data.sampler import make_sampler
from training.pretrain import train

pytestmark = pytest.mark.full


@pytest.fixture
def shards(tmp_path):
    """Eight tiles of 96 px: white, with a black square of 48 px in the middle."""
    tile = np.full((96, 96, 3), 255, np.uint8)
    tile[24:72, 24:72] = 0
    stream = io.BytesIO()
    Image.fromarray(tile).save(stream, "PNG")
    rows = ["shard,key,slide,mpp_value"]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(8):
            about = tarfile.TarInfo(f"t{i}.png")
            about.size = len(stream.getvalue())
            tar.addfile(about, io.BytesIO(stream.getvalue()))
            rows.append(f"a.tar,t{i},s{i},{('0.25', '0.5', '')[i % 3]}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return tmp_path


def test_the_field_follows_the_stated_scale(shards):
    corpus = open_corpus(shards)
    sampler = make_sampler(corpus, batch=8, seed=0)
    (_, batch), *_ = batches(corpus, sampler, canvas=48, mpp=0.25, start=0, stop=1)
    dark = (batch.tiles < 128).float().mean((1, 2, 3)).tolist()
    for share, index in zip(dark, batch.indices.tolist(), strict=True):
        stated = corpus.mpp_of(index)
        # 12 um: 48 px at 0.25, all black; 24 px at 0.5, all black; without a scale the whole tile
        assert share == pytest.approx(0.25 if np.isnan(stated) else 1.0, abs=0.02)
    (_, batch), *_ = batches(corpus, sampler, canvas=48, start=0, stop=1)
    assert (batch.tiles < 128).float().mean() == pytest.approx(0.25, abs=0.02)


def test_a_run_says_what_has_no_scale_and_records_the_field(shards, tmp_path, caplog):
    asked = values(shards, tmp_path / "run", minutes=1e-9)
    asked["data"] |= {"mpp": 0.5, "batch": 4}
    run = train(config.check(asked))
    assert "crops are cut from 24 um. 2 of 8 tiles have no stated scale" in caplog.text
    assert json.loads((run / "data.json").read_text())["canvas_mpp"] == 0.5


@pytest.mark.parametrize(("mpp", "asked_mpp"), [(0.5, None), (0.5, 0.5), (1.0, 0.25)])
def test_an_export_says_the_scale_that_its_run_has_seen(shards, tmp_path, caplog, mpp, asked_mpp):
    asked = values(shards, tmp_path / "run", minutes=1e-9)
    asked["data"] |= {"mpp": mpp, "batch": 4}
    asked["export"] = {"mpp": asked_mpp}
    spec = read_spec(train(config.check(asked)) / "export")
    assert (spec.mpp, spec.mpp_range) == (mpp, (mpp, mpp))
    assert ("export.mpp=0.25: the run has seen 1 to 1 um/px" in caplog.text) == (asked_mpp == 0.25)


def test_without_any_scale_it_is_refused(shards, tmp_path):
    lines = (shards / "manifest.csv").read_text().splitlines()
    (shards / "manifest.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    asked = values(shards, tmp_path / "run")
    asked["data"]["mpp"] = 0.5
    with pytest.raises(ConfigError, match="no table states the scale"):
        train(config.check(asked))

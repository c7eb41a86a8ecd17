"""Corpus, sampler and loader on small shards made here."""

import csv
import io
import logging
import tarfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pydantic")

from pathencoder.errors import ConfigError
from training.data.corpus import STAIN_CLASSES, open_corpus
from training.data.loader import batches, fit_canvas
from training.data.sampler import make_sampler
from training.data.stains import stain_weights

pytestmark = pytest.mark.full


def picture(value, side=24):
    out = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def shards(tmp_path):
    """Twelve tiles of four slides in two shards: slide s0 is IHC, s3 is not permissive, the last tile must not be used."""
    rows = []
    for s in range(2):
        with tarfile.open(tmp_path / f"part-{s}.tar", "w") as tar:
            for i in range(6):
                key, slide = f"k{6 * s + i}", (6 * s + i) // 3
                data = picture(10 * (6 * s + i))
                info = tarfile.TarInfo(f"{key}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                rows.append(
                    {
                        "shard": f"part-{s}.tar",
                        "key": key,
                        "src": f"src{slide}",
                        "slide": f"s{slide}",
                        "stain_class": "ihc" if slide == 0 else "he",
                        "licence": "N" if slide == 3 else "P",
                        "use": "0" if key == "k11" else "1",
                    }
                )
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_shards_are_read_by_their_manifest(shards):
    corpus = open_corpus(shards)
    assert len(corpus) == 11
    assert "k11" not in corpus.keys  # use=0
    assert corpus.slide_names == ["s0", "s1", "s2", "s3"]
    assert list(np.diff(corpus.slide_starts)) == [3, 3, 3, 2]
    for i, key in enumerate(corpus.keys):
        assert corpus.read(i)[0, 0, 0] == 10 * int(key[1:])


def test_filters(shards):
    assert len(open_corpus(shards, licences=("P",))) == 9
    assert set(open_corpus(shards, stains=("ihc",)).stains) == {STAIN_CLASSES.index("ihc")}
    assert len(open_corpus(shards, without=("src1", "src2"))) == 5
    with pytest.raises(ConfigError, match="no tiles"):
        open_corpus(shards, licences=("X",))


def test_the_digest_is_of_the_tiles_that_are_used(shards):
    assert open_corpus(shards).digest == open_corpus(shards).digest
    assert open_corpus(shards).digest != open_corpus(shards, licences=("P",)).digest


def test_a_folder_of_images_needs_no_manifest(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(7))
    corpus = open_corpus(tmp_path)
    assert (len(corpus), corpus.slide_names) == (3, ["a", "b"])
    with pytest.raises(ConfigError, match="not a folder"):
        open_corpus(tmp_path / "nowhere")


def test_a_shard_that_was_cut_short_gives_what_is_whole(shards):
    shard = shards / "part-1.tar"
    shard.write_bytes(shard.read_bytes()[:2048])
    corpus = open_corpus(shards)
    assert 6 <= len(corpus) < 11
    assert all(corpus.read(i).shape == (24, 24, 3) for i in range(len(corpus)))


def test_a_draw_follows_from_seed_and_step(shards):
    corpus = open_corpus(shards)
    a, b = (make_sampler(corpus, batch=4, seed=1) for _ in range(2))
    assert all(np.array_equal(a.draw(s), b.draw(s)) for s in range(20))
    assert any(not np.array_equal(a.draw(s), make_sampler(corpus, batch=4, seed=2).draw(s)) for s in range(5))
    assert any(not np.array_equal(a.draw(s), a.draw(s + 1)) for s in range(5))


def test_no_slide_twice_in_a_batch_while_there_are_enough(shards):
    corpus = open_corpus(shards)
    slide_of = np.repeat(np.arange(4), np.diff(corpus.slide_starts))
    for step in range(50):
        assert len(set(slide_of[make_sampler(corpus, batch=4, seed=0).draw(step)])) == 4
    counts = np.bincount(slide_of[make_sampler(corpus, batch=8, seed=0).draw(0)])
    assert list(counts) == [2, 2, 2, 2]


def test_stain_weights_draw_a_class_more_often(shards):
    corpus = open_corpus(shards)
    heavy = make_sampler(corpus, batch=1, seed=0, slide_power=0, stain_weights=stain_weights({"ihc": 6.0}))
    share = np.mean([corpus.stains[heavy.draw(s)[0]] == STAIN_CLASSES.index("ihc") for s in range(2000)])
    assert share == pytest.approx(6 / 9, abs=0.04)
    with pytest.raises(ConfigError, match="ICH"):
        stain_weights({"ICH": 2.0})


def test_slide_power_one_is_uniform_over_tiles(shards):
    corpus = open_corpus(shards)
    sampler = make_sampler(corpus, batch=1, seed=0, slide_power=1)
    counts = np.bincount([sampler.draw(s)[0] for s in range(4400)], minlength=11)
    assert counts.min() > 300
    assert counts.max() < 510


def test_batches_hold_the_drawn_tiles_and_ranks_share_them(shards):
    corpus = open_corpus(shards)
    sampler = make_sampler(corpus, batch=4, seed=0)
    whole = dict(batches(corpus, sampler, canvas=24, start=0, stop=3))
    parts = [dict(batches(corpus, sampler, canvas=24, start=0, stop=3, rank=r, world=2)) for r in range(2)]
    for step, batch in whole.items():
        assert batch.tiles.shape == (4, 3, 24, 24)
        assert [int(t[0, 0, 0]) for t in batch.tiles] == [10 * int(corpus.keys[i][1:]) for i in sampler.draw(step)]
        assert [batch.indices[r::2].tolist() for r in range(2)] == [p[step].indices.tolist() for p in parts]


def test_an_undecodable_tile_is_named_and_replaced(tmp_path, caplog):
    for i in range(4):
        (tmp_path / f"s{i}").mkdir()
        (tmp_path / f"s{i}" / "t.png").write_bytes(picture(10 * i) if i else b"not an image")
    corpus = open_corpus(tmp_path)
    with caplog.at_level(logging.WARNING):
        made = list(batches(corpus, make_sampler(corpus, batch=4, seed=0), canvas=24, start=0, stop=3))
    assert all(len(b.tiles) == 4 and 0 not in b.indices for _, b in made)
    assert [r.message for r in caplog.records if "s0/t.png" in r.message] == [r.message for r in caplog.records]
    assert len(caplog.records) == 1  # named once


def test_fit_canvas_takes_the_middle_square():
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 200
    assert (fit_canvas(wide, 20) == 200).all()
    assert fit_canvas(wide, 10).shape == (10, 10, 3)

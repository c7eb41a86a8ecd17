"""Corpus, sampler and loader on small generated shards."""

import csv
import io
import logging
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from pathencoder.errors import ConfigError, ImageError
from training.data.corpus import open_corpus
from training.data.loader import batches, fit_canvas
from training.data.sampler import make_sampler
from training.data.shards import write_index
from training.data.stains import stain_weights
from training.data.tiles import STAIN_CLASSES

pytestmark = pytest.mark.full


def picture(value, side=24):
    out = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def shards(tmp_path):
    """Twelve tiles of four slides in two shards.

    Slide s0 is IHC, s3 is not permissive, the last tile must not be used.
    """
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
    with pytest.raises(
        ConfigError, match=r"data\.licences=\[X\]: no row of .* has licence 'x'; there are: n, p"
    ):
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


# nothing, in a header, after a tile, in a tile, after a tile
@pytest.mark.parametrize("length", [0, 100, 2048, 2500, 3072])
def test_a_truncated_shard_is_named_and_gives_its_whole_tiles(shards, caplog, length):
    shard = shards / "part-1.tar"
    shard.write_bytes(shard.read_bytes()[:length])
    corpus = open_corpus(shards)
    assert len(corpus) == 6 + length // 1024
    assert all(corpus.read(i).shape == (24, 24, 3) for i in range(len(corpus)))
    assert f"{shard} is cut short: its first {length // 1024} tiles are whole" in caplog.text
    assert f"{5 - length // 1024} tiles of the manifest are not in shard {shard}" in caplog.text


def test_a_missing_shard_is_named(shards, caplog):
    (shards / "part-1.tar").unlink()
    assert len(open_corpus(shards)) == 6
    assert f"shard {shards / 'part-1.tar'} of the manifest is missing" in caplog.text


def test_an_undamaged_shard_is_not_reported_as_cut(shards, caplog):
    open_corpus(shards)
    assert "cut short" not in caplog.text


def test_a_shard_that_shrinks_while_it_is_read_is_named(shards):
    corpus = open_corpus(shards)
    (shards / "part-0.tar").write_bytes(b"")
    with pytest.raises(
        ImageError, match=r"tile k0 cannot be decoded: .*part-0\.tar is cut short: 0 of"
    ):
        corpus.read(corpus.keys.index("k0"))


def rewrite(shards, change):
    """The manifest with `change` laid over each row."""
    with (shards / "manifest.csv").open(newline="") as file:
        rows = [{**r, **change(r)} for r in csv.DictReader(file)]
    with (shards / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_patient_in_two_splits_is_refused(shards):
    rewrite(
        shards,
        lambda r: {"patient": r["slide"], "split": "train" if int(r["key"][1:]) < 7 else "test"},
    )
    with pytest.raises(ConfigError, match=r"1 patients are in two splits: s2 \(test and train\)"):
        open_corpus(shards)


def test_held_out_splits_are_never_trained_on(shards):
    rewrite(
        shards,
        lambda r: {"split": {"s0": "train", "s1": "val", "s2": "Test", "s3": ""}[r["slide"]]},
    )
    assert open_corpus(shards).slide_names == ["s0", "s3"]


def test_an_empty_corpus_is_refused_and_a_single_slide_is_logged(tmp_path, caplog):
    with pytest.raises(ConfigError, match="no tiles"):
        open_corpus(tmp_path)
    (tmp_path / "t.png").write_bytes(picture(1))
    assert len(open_corpus(tmp_path)) == 1
    assert "one slide" in caplog.text


def by_slide(shards):
    """The same shards with a row a slide instead.

    k11, which must not be used, is left out by its range.
    """
    rows = [
        (
            f"s{s}",
            f"part-{s // 2}.tar",
            3 * (s % 2),
            3 - (s == 3),
            "ihc" if s == 0 else "he",
            f"organ{s // 3}",
        )
        for s in range(4)
    ]
    lines = ["slide,shard,first,tiles,stain_class,organ", *(",".join(map(str, r)) for r in rows)]
    (shards / "slides.csv").write_text("\n".join(lines) + "\n")
    return open_corpus(shards)


@pytest.mark.parametrize("indexed", [False, True])
def test_a_corpus_by_slides_is_the_corpus_by_tiles(shards, indexed):
    rows = open_corpus(shards)
    if indexed:
        for s in range(2):
            write_index(shards / f"part-{s}.tar")
    ranges = by_slide(shards)
    assert len(ranges) == len(rows) == 11
    assert ranges.slide_names == rows.slide_names
    assert np.array_equal(ranges.slide_starts, rows.slide_starts)
    assert np.array_equal(ranges.stains, rows.stains)
    assert ranges.stain_counts() == rows.stain_counts() == {"he": 8, "ihc": 3}
    key_of = {int(rows.read(i)[0, 0, 0]): i for i in range(11)}
    assert sorted(key_of) == sorted(int(ranges.read(i)[0, 0, 0]) for i in range(11))
    slides = [int(ranges.read(i)[0, 0, 0]) // 30 for i in range(11)]
    assert slides == list(ranges.slides_of(np.arange(11)))
    a, b = make_sampler(rows, batch=4, seed=3), make_sampler(ranges, batch=4, seed=3)
    assert all(np.array_equal(a.draw(s), b.draw(s)) for s in range(5))


def test_a_corpus_by_slides_names_missing_shards_and_images(shards, caplog):
    corpus = by_slide(shards)
    (shards / "part-1.tar").write_bytes((shards / "part-1.tar").read_bytes()[:2048])
    assert corpus.read(6).shape == (24, 24, 3)
    with pytest.raises(
        ImageError,
        match=r"s3/part-1\.tar#4 cannot be decoded: .*part-1\.tar is cut short: 0 of",
    ):
        corpus.read(10)
    (shards / "part-1.tar").unlink()
    assert len(open_corpus(shards)) == 6
    assert "part-1.tar with 2 rows of slides.csv is missing" in caplog.text
    (shards / "slides.csv").write_text("slide,shard,first,tiles\ns0,part-0.tar,zero,3\n")
    with pytest.raises(ConfigError, match="whole numbers"):
        open_corpus(shards)


def test_organs_and_stains_can_be_drawn_equally_often(shards):
    """he: s1, s2 of organ0 and s3 of organ1; ihc: s0 of organ0."""
    corpus = by_slide(shards)
    shares = make_sampler(
        corpus, batch=1, seed=0, slide_power=0, organ_power=0, stain_power=0
    ).weights
    assert shares == pytest.approx([1 / 2, 1 / 8, 1 / 8, 1 / 4])
    assert make_sampler(
        corpus, batch=1, seed=0, slide_power=0, stain_power=0
    ).weights == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert make_sampler(corpus, batch=1, seed=0, slide_power=1).weights == pytest.approx(
        np.array([3, 3, 3, 2]) / 11
    )


def test_a_draw_follows_from_seed_and_step(shards):
    corpus = open_corpus(shards)
    a, b = (make_sampler(corpus, batch=4, seed=1) for _ in range(2))
    assert all(np.array_equal(a.draw(s), b.draw(s)) for s in range(20))
    assert any(
        not np.array_equal(a.draw(s), make_sampler(corpus, batch=4, seed=2).draw(s))
        for s in range(5)
    )
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
    heavy = make_sampler(
        corpus, batch=1, seed=0, slide_power=0, stain_weights=stain_weights({"ihc": 6.0})
    )
    share = np.mean(
        [corpus.stains[heavy.draw(s)[0]] == STAIN_CLASSES.index("ihc") for s in range(2000)]
    )
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
    parts = [
        dict(batches(corpus, sampler, canvas=24, start=0, stop=3, rank=r, world=2))
        for r in range(2)
    ]
    for step, batch in whole.items():
        assert batch.tiles.shape == (4, 3, 24, 24)
        assert [int(t[0, 0, 0]) for t in batch.tiles] == [
            10 * int(corpus.keys[i][1:]) for i in sampler.draw(step)
        ]
        assert [batch.indices[r::2].tolist() for r in range(2)] == [
            p[step].indices.tolist() for p in parts
        ]


@pytest.mark.parametrize("keep_mb", [0, 1])
def test_tiles_kept_in_memory_are_decoded_once_and_are_the_same(shards, monkeypatch, keep_mb):
    corpus, opened = open_corpus(shards, licences=("P",)), []
    sampler = make_sampler(corpus, batch=3, seed=5)
    plain = dict(batches(corpus, sampler, canvas=24, start=0, stop=20))
    plainly = type(corpus).decode
    monkeypatch.setattr(
        type(corpus), "decode", lambda self, i, *rest: opened.append(i) or plainly(self, i, *rest)
    )
    kept = dict(batches(corpus, sampler, canvas=24, start=0, stop=20, keep_mb=keep_mb))
    assert all((kept[step].tiles == plain[step].tiles).all() for step in plain)
    assert len(opened) == (len(set(opened)) if keep_mb else 60)


@pytest.mark.filterwarnings(
    "ignore:This process.*fork:DeprecationWarning", "ignore:This DataLoader will create:UserWarning"
)
def test_processes_read_what_threads_read(shards):
    corpus = open_corpus(shards)
    sampler = make_sampler(corpus, batch=4, seed=0)
    corpus.read(0)  # the shard is open before the processes begin
    plain = list(batches(corpus, sampler, canvas=24, start=3, stop=30, rank=1, world=2))
    state = torch.get_rng_state()
    made = list(batches(corpus, sampler, canvas=24, start=3, stop=30, rank=1, world=2, processes=2))
    assert torch.equal(state, torch.get_rng_state())
    assert [step for step, _ in made] == [step for step, _ in plain] == list(range(3, 30))
    for (_, a), (_, b) in zip(made, plain, strict=True):
        assert all(
            torch.equal(x, y)
            for x, y in ((a.tiles, b.tiles), (a.stains, b.stains), (a.indices, b.indices))
        )


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_batch_that_no_process_can_decode_is_an_error(tmp_path):
    for i in range(2):
        (tmp_path / f"s{i}").mkdir()
        (tmp_path / f"s{i}" / "t.png").write_bytes(b"not an image")
    corpus = open_corpus(tmp_path)
    with pytest.raises(ImageError, match="no tile of this batch"):
        list(
            batches(
                corpus,
                make_sampler(corpus, batch=2, seed=0),
                canvas=24,
                start=0,
                stop=3,
                processes=1,
            )
        )


def test_no_more_tiles_are_kept_than_there_is_room_for(shards, monkeypatch):
    corpus, opened = open_corpus(shards, licences=("P",)), []
    sampler = make_sampler(corpus, batch=3, seed=5)
    plainly = type(corpus).decode
    monkeypatch.setattr(
        type(corpus), "decode", lambda self, i, *rest: opened.append(i) or plainly(self, i, *rest)
    )
    # room for two of 0.37 MB
    list(batches(corpus, sampler, canvas=350, start=0, stop=20, keep_mb=1))
    assert sorted(set(opened)) == list(range(len(corpus)))
    assert sum(opened.count(i) == 1 for i in set(opened)) == 2


def test_an_undecodable_tile_is_named_and_replaced(tmp_path, caplog):
    for i in range(4):
        (tmp_path / f"s{i}").mkdir()
        (tmp_path / f"s{i}" / "t.png").write_bytes(picture(10 * i) if i else b"not an image")
    corpus = open_corpus(tmp_path)
    with caplog.at_level(logging.WARNING):
        made = list(
            batches(corpus, make_sampler(corpus, batch=4, seed=0), canvas=24, start=0, stop=3)
        )
    assert all(len(b.tiles) == 4 and 0 not in b.indices for _, b in made)
    assert [r.message for r in caplog.records if "s0/t.png" in r.message] == [
        r.message for r in caplog.records
    ]
    assert len(caplog.records) == 1


def test_fit_canvas_crops_the_central_square():
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 200
    assert (fit_canvas(wide, 20) == 200).all()
    assert fit_canvas(wide, 10).shape == (10, 10, 3)

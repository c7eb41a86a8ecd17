"""Tiles that are read from slides as they are needed, alone and beside shards."""

import dataclasses
import shutil

import numpy as np
import pytest
from object_servers import web_server
from small_archive import SMALL, contents, packed, small_manifest

from pathencoder.errors import ConfigError, ImageError
from pathencoder.slides.reader import open_slide
from training import config
from training.archive.pack.positions import make_positions, positions_folder
from training.data import on_slides
from training.data.corpus import open_corpus, with_slides
from training.data.loader import batches
from training.data.sampler import make_sampler
from training.data.window import in_window
from training.from_config import corpus_of

pytestmark = pytest.mark.full


@pytest.fixture
def archive(tmp_path):
    return tmp_path, small_manifest(tmp_path)


@pytest.fixture
def positions(archive):
    return make_positions(archive[0] / "m.parquet", 64, 0.5)


@pytest.fixture
def mixed(archive, positions):
    """Two slides in shards, and all positions."""
    root, rows = archive
    some = [dataclasses.replace(row, use=row.slide != "case1_HE") for row in rows]
    packed(some, root, SMALL)
    return with_slides(open_corpus(root / "shards"), positions)


def all_batches(corpus, world, start=0, stop=4, **options):
    """Tile index -> bytes, for each step, over all training processes."""
    sampler = make_sampler(corpus, batch=8, seed=3)
    steps = [{} for _ in range(start, stop)]
    for rank in range(world):
        for step, batch in batches(
            corpus, sampler, canvas=64, start=start, stop=stop, rank=rank, world=world, **options
        ):
            for index, tile in zip(batch.indices.tolist(), batch.tiles.numpy(), strict=True):
                steps[step - start][index] = tile.tobytes()
    return steps


def test_a_tile_is_the_region_of_its_slide(archive, positions):
    corpus = open_corpus(positions)
    assert corpus.slide_names == ["case0_HE", "case1_HE", "case2_HE"]
    assert corpus.stain_counts() == {"he": len(corpus)}
    assert corpus.mpp_of(0) == 0.5
    slide = open_slide(archive[0] / "slides" / "case0_HE.tif")
    place = corpus.tiles.place(5)
    x, y = np.fromfile(place.file, "<i4", 2, offset=place.offset).tolist()
    assert np.array_equal(corpus.read(5), slide.read(x, y, 0, 64, 64))
    assert corpus.tiles.key(5) == "case0_HE/000000.xy#5"


def test_shards_and_slides_are_one_corpus(archive, mixed):
    root, _ = archive
    assert mixed.slide_names == ["case0_HE", "case2_HE", "case1_HE"]
    shards = open_corpus(root / "shards")
    assert len(mixed) > len(shards) == 12
    assert np.array_equal(mixed.read(3), shards.read(3))
    assert mixed.tiles.key(12).startswith("case1_HE/000000.xy#")
    assert mixed.read(12).shape == (64, 64, 3)
    assert mixed.stain_counts() == {"he": len(mixed)}
    assert mixed.contents.stains["he"].slides == 3
    assert mixed.slides_of(np.array([0, 11, 12])).tolist() == [0, 1, 2]
    assert set(mixed.fetch([0, 12])) == {0}


@pytest.mark.parametrize("world", [2, 4])
def test_other_numbers_of_processes_read_the_same_tiles_after_a_resume(mixed, world):
    whole = all_batches(mixed, 1)
    assert all(len(step) == 8 for step in whole)
    assert all_batches(mixed, world, start=2) == whole[2:]


@pytest.mark.slow
def test_loader_processes_read_the_same_tiles(mixed):
    mixed.read(len(mixed) - 1)  # a slide that is open before the processes fork
    assert all_batches(mixed, 2, stop=2, processes=2) == all_batches(mixed, 1, stop=2)


def test_a_window_limits_the_slides_that_are_read_in_turn(positions):
    corpus = open_corpus(positions)
    sampler = in_window(make_sampler(corpus, batch=4, seed=0), corpus, 1)
    drawn = corpus.slides_of(sampler.draw(0))
    assert len(set(drawn.tolist())) == 1


def test_slides_are_closed_when_others_are_read(positions, monkeypatch):
    opened = on_slides.OpenSlides(2)
    monkeypatch.setattr(on_slides, "_OPEN", opened)
    corpus = open_corpus(positions)
    for index in corpus.slide_starts[:-1].tolist():
        corpus.read(index)
    assert [path.stem for path in opened._entries] == ["case1_HE", "case2_HE"]


def test_a_slide_that_becomes_unreadable_is_replaced_in_the_batch(archive, positions, monkeypatch):
    monkeypatch.setattr(on_slides, "_OPEN", on_slides.OpenSlides(2))
    corpus = open_corpus(positions)
    (archive[0] / "slides" / "case0_HE.tif").write_bytes(b"no slide")
    with pytest.raises(ImageError, match="case0_HE"):
        corpus.read(0)
    assert all(len(step) >= 4 for step in all_batches(corpus, 1, stop=1))


def test_missing_slides_and_positions_are_said(archive, positions, caplog):
    root, _ = archive
    (root / "slides" / "case0_HE.tif").unlink()
    assert len(open_corpus(positions).slide_names) == 2
    assert "do not lie there any more" in caplog.text
    (positions / "000000.xy").write_bytes(b"")
    with pytest.raises(ConfigError, match="cut short"):
        open_corpus(positions)


def test_the_identity_changes_with_a_slide(positions):
    before = open_corpus(positions).tiles.content()
    assert open_corpus(positions).tiles.content() == before
    table = (positions / "slides.csv").read_text()
    content = table.split("\n")[1].split(",")[-5]
    (positions / "slides.csv").write_text(table.replace(content, "f" * 32))
    assert open_corpus(positions).tiles.content() != before


def settings(root, *more):
    text = "data: {}\nmethod: {name: simclr}\noptim: {steps: 1}\nrun: {out: o}\nexport: {name: x}\n"
    (root / "r.yaml").write_text(text)
    return config.load(root / "r.yaml", ["data.canvas=64", "method.crop.px=32", *more])


def test_the_setting_reads_slides_alone_or_beside_shards(archive):
    root, rows = archive
    alone = settings(root, f"data.slides={root / 'm.parquet'}")
    assert alone.data.root == positions_folder(root / "m.parquet", 64, 0.5)
    assert corpus_of(alone).slide_names == ["case0_HE", "case1_HE", "case2_HE"]
    packed(rows, root, SMALL)
    both = settings(root, f"data.slides={root / 'm.parquet'}", f"data.root={root / 'shards'}")
    assert len(corpus_of(both)) == 18  # the shards hold all slides
    shutil.rmtree(root / "shards")
    packed([dataclasses.replace(row, use=i > 0) for i, row in enumerate(rows)], root, SMALL)
    assert corpus_of(both).slide_names == ["case1_HE", "case2_HE", "case0_HE"]


def test_shards_in_a_store_and_slides_here_are_one_corpus(archive, positions, monkeypatch):
    root, rows = archive
    monkeypatch.setenv("PATHENCODER_CACHE", str(root / "cache"))
    packed([dataclasses.replace(row, use=row.slide != "case1_HE") for row in rows], root, SMALL)
    here = with_slides(open_corpus(root / "shards"), positions)
    with web_server(contents(root / "shards")) as held:
        there = with_slides(open_corpus(held.address, cache_mb=5), positions)
        assert there.slide_names == here.slide_names
        assert all_batches(there, 2, stop=2) == all_batches(here, 1, stop=2)


def test_neither_tiles_nor_slides_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.root"):
        settings(tmp_path)

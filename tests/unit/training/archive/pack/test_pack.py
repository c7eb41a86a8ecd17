"""Slides of a manifest become shards: what is written, resumed, refused, left out and said."""

import dataclasses
import errno
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_archive import (
    SMALL,
    contents,
    edit_manifest,
    manifest_of,
    packed,
    small_manifest,
    write_slide,
)

from pathencoder.errors import ConfigError, StoreError
from pathencoder.files import Mismatch
from pathencoder.slides.reader import open_slide
from training.archive.__main__ import main
from training.archive.http import Stopped
from training.archive.pack import files, group, run
from training.archive.pack import layout as layouts
from training.archive.pack.positions import make_positions
from training.archive.pack.settings import Settings
from training.archive.pack.verify import verify
from training.archive.store import read_manifest
from training.data.corpus import open_corpus
from training.data.loader import batches
from training.data.sampler import make_sampler

pytestmark = pytest.mark.full


@pytest.fixture
def archive(tmp_path):
    return tmp_path, small_manifest(tmp_path)


def verify_lines(root):
    return list(verify(root / "shards"))


def table(root):
    import pyarrow.parquet as pq

    return [row for f in sorted((root / "shards").glob("*.tiles.parquet")) for row in
            pq.read_table(f).to_pylist()]  # fmt: skip


def test_tiles_are_those_of_the_slide_at_their_place_and_scale(archive):
    root, rows = archive
    settings = dataclasses.replace(SMALL, mpp=(0.5, 1.0), quality=100)
    found = packed(rows, root, settings)
    assert (found.tables.slides, found.tables.tiles, found.left) == (3, 36, 0)
    tiles = table(root)
    assert len(tiles) == 36
    with tarfile.open(root / "shards" / "000000.tar") as tar:
        members = tar.getmembers()
        for place in (0, 7):
            row, member = tiles[place], members[place]
            nm = round(1000 * row["mpp"])
            assert member.name == f"{row['slide']}/{nm}nm_{row['x']}_{row['y']}.jpg"
            image = Image.open(io.BytesIO(tar.extractfile(member).read()))
            slide = open_slide(root / "slides" / f"{row['slide']}.tif")
            side = round(row["side"])
            there = Image.fromarray(slide.read(row["x"], row["y"], 0, side, side))
            there = there.resize((64, 64), Image.Resampling.BOX)
            assert np.abs(np.asarray(image, int) - np.asarray(there, int)).mean() < 4
    assert {row["mpp"] for row in tiles} == {0.5, 1.0}
    assert all(row["tissue"] > 0.2 and row["qc_blur"] > 0 for row in tiles)


def test_training_reads_the_shards_with_their_scale_and_stain(archive):
    root, rows = archive
    packed(rows, root, dataclasses.replace(SMALL, mpp=(0.5, 1.0)))
    corpus = open_corpus(root / "shards")
    assert (len(corpus), len(corpus.slide_names)) == (36, 3)
    assert corpus.stain_counts() == {"he": 36}
    assert [corpus.mpp_of(i) for i in range(12)] == [0.5] * 6 + [1.0] * 6
    sampler = make_sampler(corpus, batch=3, seed=0)
    ((_, batch),) = batches(corpus, sampler, canvas=32, mpp=1.0, start=0, stop=1)
    assert batch.tiles.shape == (3, 3, 32, 32)


def test_held_out_and_unused_slides_are_packed_and_not_trained_on(archive):
    root, rows = archive
    rows = [dataclasses.replace(rows[0], split="test"), dataclasses.replace(rows[1], use=False),
            rows[2]]  # fmt: skip
    packed(rows, root)
    assert open_corpus(root / "shards").slide_names == [rows[2].slide]
    packed([rows[0], dataclasses.replace(rows[1], use=True), rows[2]], root)  # added later
    assert open_corpus(root / "shards").slide_names == [rows[1].slide, rows[2].slide]


@pytest.mark.parametrize("patient", ["19650312-4711", "p-0000000000000001"])
def test_a_patient_that_no_run_of_manifest_took_in_is_not_packed(archive, patient):
    root, rows = archive
    manifest = root / "m.parquet"
    packed(rows, root)
    before = contents(root / "shards")
    edit_manifest(manifest, "case1_HE", patient=patient)
    edited = read_manifest(manifest).rows
    for write in (lambda: packed(edited, root), lambda: make_positions(manifest, 64, 0.5)):
        with pytest.raises(
            ConfigError, match=r"1 slide has .* \(case1_HE\).* manifest --out"
        ) as error:
            write()
        assert patient not in str(error.value)
    assert contents(root / "shards") == before
    assert (
        "1 slide has another patient" in CliRunner().invoke(main, ["check", str(manifest)]).output
    )
    code = {row.slide: row.patient for row in manifest_of(root)}["case1_HE"]
    packed(read_manifest(manifest).rows, root)
    assert f",{code},he," in (root / "shards" / "slides.csv").read_text()
    assert (code == patient) == patient.startswith("p-")
    edit_manifest(manifest, "case1_HE", split="")  # which a person may leave empty
    assert packed(read_manifest(manifest).rows, root).tables.slides == 3


@pytest.mark.parametrize("at", [0, 3, 6, 11, 17])
def test_a_run_that_ends_in_mid_slide_leads_to_the_same_bytes(archive, monkeypatch, at):
    root, rows = archive
    packed(rows, root)
    whole = contents(root / "shards")
    shutil.rmtree(root / "shards")
    plain, written = files.Tar.add, []

    def add(self, *args):
        if len(written) == at:
            raise KeyboardInterrupt
        written.append(args)
        plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(files.Tar, "add", add)
        with pytest.raises(KeyboardInterrupt):
            packed(rows, root)
    partial = root / "shards" / ".000000.tar.partial"
    if at:
        with partial.open("ab") as stream:  # what the system wrote of the tile that was cut off
            stream.write(b"x" * 700)
    assert not (root / "shards" / "000000.json").exists()
    found = packed(rows, root)
    assert contents(root / "shards") == whole
    assert (found.groups, found.left) == (1, 0)
    again = packed(rows, root)
    assert (again.groups, again.tables.tiles) == (0, 18)


@pytest.mark.parametrize("step", ["replace", "write_index", "write_tile_table"])
def test_a_run_that_ends_while_shards_are_completed_leads_to_the_same_bytes(
    archive, monkeypatch, step
):
    root, rows = archive
    settings = dataclasses.replace(SMALL, quality=100, shard_mb=0.02)  # three shards
    packed(rows, root, settings)
    whole = contents(root / "shards")
    shutil.rmtree(root / "shards")

    def end(*_):
        raise KeyboardInterrupt

    place = {"replace": files.os, "write_index": files, "write_tile_table": group}[step]
    with monkeypatch.context() as patch:
        patch.setattr(place, step, end)
        with pytest.raises(KeyboardInterrupt):
            packed(rows, root, settings)
    packed(rows, root, settings)
    assert contents(root / "shards") == whole


def test_shards_end_behind_the_slide_that_fills_them(archive):
    root, rows = archive
    packed(rows, root, dataclasses.replace(SMALL, quality=100, shard_mb=0.02))  # one group
    shards = sorted(f.name for f in (root / "shards").glob("*.tar"))
    assert shards == ["000000-1.tar", "000000.tar"]
    assert verify_lines(root) == []
    assert len(open_corpus(root / "shards")) == 18


def test_a_share_of_the_work_is_a_share_of_the_groups_and_all_shares_are_all(archive):
    root, _ = archive
    for i in range(3, 9):
        write_slide(root / "slides" / f"case{i}_HE.tif", i)
    rows = manifest_of(root)
    settings = dataclasses.replace(SMALL, shard_mb=0.02)
    packed(rows, root, settings)
    whole = contents(root / "shards")
    assert len(list((root / "shards").glob("*.json"))) > 3
    shutil.rmtree(root / "shards")
    first = packed(rows, root, settings, where=run.Where(0, (1, 2)))
    assert first.left > 0
    second = packed(rows, root, settings, where=run.Where(0, (2, 2)))
    assert second.left == 0
    assert contents(root / "shards") == whole


def test_a_bad_slide_is_named_and_costs_no_other(archive):
    root, rows = archive
    bad = root / "slides" / "case1_HE.tif"
    data = bad.read_bytes()
    bad.write_bytes(b"no slide")
    found = packed(rows, root)
    assert [name for name, _ in found.tables.failed] == ["case1_HE"]
    assert found.tables.tiles == 12
    before = contents(root / "shards")
    assert packed(rows, root).groups == 0  # it has not changed: not tried again
    assert contents(root / "shards") == before
    bad.write_bytes(data)
    found = packed(rows, root)
    assert (found.groups, found.tables.tiles, found.tables.failed) == (1, 18, [])
    assert len(open_corpus(root / "shards").slide_names) == 3


def test_damaged_tiles_are_left_out_and_counted(archive, monkeypatch):
    from pathencoder.errors import SlideError
    from training.archive.pack import slide

    root, rows = archive
    plain, seen = slide.read_tile, []

    def damaged(opened, grid, x, y):
        seen.append((x, y))
        if len(seen) == 2:
            raise SlideError("a damaged tile")
        return plain(opened, grid, x, y)

    monkeypatch.setattr(slide, "read_tile", damaged)
    found = packed(rows, root)
    assert found.tables.tiles == 17
    assert found.tables.damaged == [("case0_HE", 1, "a damaged tile")]


def test_one_slide_twice_is_found_by_its_bytes_and_by_its_picture(archive):
    root, rows = archive
    pixels = open_slide(root / "slides" / "case1_HE.tif").read(0, 0, 0, 640, 512)
    from small_slides import write_tiff

    write_tiff(root / "slides" / "rescanned_HE.tif", pixels + (pixels < 250), mpp=0.5)
    shutil.copy(root / "slides" / "case0_HE.tif", root / "slides" / "copy_HE.tif")
    rows = [dataclasses.replace(row, sha256="", problem="") for row in manifest_of(root)]
    found = packed(rows, root)
    pairs = {(one, other): how for one, other, how, *_ in found.tables.duplicates}
    assert pairs.pop(("rescanned_HE", "case1_HE")) == "picture"
    assert pairs == {("copy_HE", "case0_HE"): "bytes"}
    assert "copy_HE" not in open_corpus(root / "shards").slide_names


def test_other_settings_and_another_manifest_are_refused(archive, tmp_path):
    root, rows = archive
    packed(rows, root)
    with pytest.raises(ConfigError, match="quality 85, not 90"):
        packed(rows, root, dataclasses.replace(SMALL, quality=90))
    with pytest.raises(Mismatch, match="another manifest"):
        packed(rows[1:], root)
    other = [dataclasses.replace(rows[0], source_id="b/case0_HE.tif"), *rows[1:]]
    with pytest.raises(Mismatch, match="another manifest"):
        packed(other, root)
    (root / "shards" / "pack.json").write_text("{")
    with pytest.raises(ConfigError, match=r"pack\.json is damaged"):
        packed(rows, root)


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(archive, monkeypatch):
    root, rows = archive
    plain, written = files.Tar._open, []

    class Full:
        def __init__(self, stream):
            self.stream = stream

        def write(self, data):
            written.append(data)
            if len(written) == 8:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.stream.write(data)

        def __getattr__(self, name):
            return getattr(self.stream, name)

    with monkeypatch.context() as patch:
        patch.setattr(files.Tar, "_open", lambda self: Full(plain(self)))
        with pytest.raises(StoreError, match="the disk is full"):
            packed(rows, root)
    assert packed(rows, root).tables.tiles == 18


def test_a_source_that_disappears_ends_the_run_and_marks_no_slide(archive, monkeypatch):
    root, rows = archive
    plain = group.open_tiles

    def unmounted(path, row, settings):
        if path.name.startswith("case1"):
            (root / "slides").rename(root / "away")
        return plain(path, row, settings)

    with monkeypatch.context() as patch:
        patch.setattr(group, "open_tiles", unmounted)
        with pytest.raises(group.SourceGone, match="still mounted"):
            packed(rows, root)
    with pytest.raises(group.SourceGone, match="still mounted"):
        packed(rows, root)
    (root / "away").rename(root / "slides")
    found = packed(rows, root)
    assert (found.tables.tiles, found.tables.failed) == (18, [])


def test_slides_that_do_not_lie_here_are_packed_when_they_do(archive):
    root, rows = archive
    away = root / "slides" / "case1_HE.tif"
    away.rename(root / "away.tif")
    found = packed(rows, root)
    assert (found.absent, found.tables.slides, found.tables.failed) == (["case1_HE"], 2, [])
    (root / "away.tif").rename(away)
    found = packed(rows, root)
    assert (found.absent, found.tables.slides) == ([], 3)
    for slide in (root / "slides").iterdir():
        slide.unlink()
    shutil.rmtree(root / "shards")
    with pytest.raises(ConfigError, match=r"of the 3 slides lies here: .* were in .*slides. Mount"):
        packed(rows, root)


def test_verify_finds_changed_missing_and_foreign_shards(archive):
    root, rows = archive
    packed(rows, root)
    shards = root / "shards"
    assert verify_lines(root) == []
    data = bytearray((shards / "000000.tar").read_bytes())
    data[2000] ^= 1
    (shards / "000000.tar").write_bytes(data)
    (shards / "old.tar").write_bytes(b"")
    changed, foreign = verify_lines(root)
    assert "its bytes changed" in changed
    assert "old.tar" in foreign
    for file in shards.glob("000000*"):
        file.unlink()
    (missing, _) = verify_lines(root)
    assert "not packed yet" in missing
    packed(rows, root)
    assert len(verify_lines(root)) == 1


def test_the_sums_are_those_of_sha256sum(archive):
    import hashlib

    root, rows = archive
    packed(rows, root)
    digest, name = (root / "shards" / "SHA256SUMS").read_text().split()
    assert digest == hashlib.sha256((root / "shards" / name).read_bytes()).hexdigest()


def test_positions_alone_are_those_of_the_tiles(archive):
    root, rows = archive
    packed(rows, root)
    with_pixels = [(row["slide"], row["x"], row["y"]) for row in table(root)]
    shutil.rmtree(root / "shards")
    packed(rows, root, dataclasses.replace(SMALL, pixels=False))
    assert [(row["slide"], row["x"], row["y"]) for row in table(root)] == with_pixels
    found = np.fromfile(root / "shards" / "000000.xy", "<i4").reshape(-1, 2)
    assert [tuple(at) for at in found.tolist()] == [(x, y) for _, x, y in with_pixels]
    assert verify_lines(root) == []


def test_a_stop_ends_between_tiles(archive):
    root, rows = archive
    layout = layouts.extended(root, rows, SMALL, is_wanted=lambda _: True, again=lambda _: ())
    job = run._job(0, layout, root, {row.slide: row for row in rows}, root)

    def pause():
        raise Stopped

    assert isinstance(group.group_outcome(job, 1, pause), Stopped)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tiles", -1), ("quality", 0), ("tile_px", 5), ("mpp", ()), ("mpp", (0.5, 0.5004))],
)
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ConfigError):
        Settings(**{name: value})


def test_records_hold_what_a_reader_needs(archive):
    root, rows = archive
    packed(rows, root)
    record = json.loads((root / "shards" / "000000.json").read_text())
    assert [shard["images"] for shard in record["shards"]] == [18]
    assert [entry["slide"] for entry in record["slides"]] == [row.slide for row in rows]

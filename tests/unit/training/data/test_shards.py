"""Tar shards: other files, folders, links, several tars in one file, indices of another tar."""

import gzip
import os
import tarfile

import numpy as np
import pytest
from small_shards import folder, link, tile, tiles_of, write_table, write_tar

from pathencoder.errors import ConfigError, ImageError, StoreError
from training.data import shards as shards_module
from training.data.corpus import open_corpus
from training.data.shards import index_path, main, ranges_of, write_index
from training.data.tar import members_of

pytestmark = pytest.mark.full

SIDE_FILES = [
    member for i in range(4) for member in ((f"00000{i}.png", tile(i)), (f"00000{i}.json", b"{}"))
]
IN_FOLDERS = [(f"slide{s}/{i}.png", tile(4 * n + i)) for n, s in enumerate("AB") for i in range(4)]


def test_other_files_are_no_tiles(tmp_path):
    write_tar(tmp_path / "a.tar", SIDE_FILES)
    write_table(
        tmp_path / "manifest.csv",
        "shard key slide\n" + "".join(f"a.tar 00000{i} s{i % 2}\n" for i in range(4)),
    )
    assert tiles_of(open_corpus(tmp_path)) == {f"00000{i}": i for i in range(4)}


def test_ranges_count_only_images(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        [folder("x"), ("._000000.png", b"x"), ("000000.labels.png", tile(9)), *SIDE_FILES],
    )
    write_table(tmp_path / "slides.csv", "slide shard first tiles\nsA a.tar 0 2\nsB a.tar 2 2")
    assert tiles_of(open_corpus(tmp_path)) == {
        "sA/a.tar#0": 0,
        "sA/a.tar#1": 1,
        "sB/a.tar#2": 2,
        "sB/a.tar#3": 3,
    }


@pytest.mark.parametrize(
    "options", [{"format": tarfile.GNU_FORMAT}, {"format": tarfile.PAX_FORMAT}]
)
@pytest.mark.parametrize("before", ["", "./", "a-long-name/" * 20])
def test_keys_are_paths_without_the_suffix(tmp_path, before, options):
    write_tar(tmp_path / "a.tar", [(before + name, data) for name, data in IN_FOLDERS], **options)
    head = before.removeprefix("./")
    keys = {f"{head}slide{s}/{i}": 4 * n + i for n, s in enumerate("AB") for i in range(4)}
    write_table(
        tmp_path / "manifest.csv", "shard key\n" + "".join(f"a.tar {key}\n" for key in keys)
    )
    assert tiles_of(open_corpus(tmp_path)) == keys


def test_a_stem_is_a_key_if_no_two_images_have_it(tmp_path):
    write_tar(
        tmp_path / "a.tar", [("x/1.png", tile(1)), ("y/2.png", tile(2)), ("2/3.png", tile(3))]
    )
    write_table(tmp_path / "manifest.csv", "shard key\na.tar 1\na.tar 2\na.tar 2/3")
    assert tiles_of(open_corpus(tmp_path)) == {"1": 1, "2": 2, "2/3": 3}


@pytest.mark.parametrize(
    ("names", "rows", "words"),
    [
        (
            ["slideA/0.png", "slideB/0.png"],
            ["0"],
            r"line 2: the key '0' could mean slideA/0\.png or slideB/0\.png",
        ),
        (["slideA/0.png", "slideB/0.png"], ["0", "0"], r"line 2: the key '0' could mean"),
        (["0.png", "0.jpg"], ["0"], r"could mean 0\.png or 0\.jpg"),
        (["0.png", "./0.png"], ["0"], r"could mean 0\.png or 0\.png"),
        (
            ["0.png", "b/0.png", "c/1.png"],
            ["0", "1"],
            r"line 2: the key '0' could mean 0\.png or b/0\.png",
        ),
        (["0.png"], ["0", "0"], r"line 2 and line 3 name one image of a\.tar"),
        (
            ["b/0.png"],
            ["0", "b/0"],
            r"line 2 and line 3 name one image of a\.tar \('0' and 'b/0'\)",
        ),
    ],
)
def test_a_key_that_could_mean_two_images_is_refused(tmp_path, names, rows, words):
    write_tar(tmp_path / "a.tar", [(name, tile(i)) for i, name in enumerate(names)])
    write_table(
        tmp_path / "manifest.csv", "shard key\n" + "".join(f"a.tar {key}\n" for key in rows)
    )
    with pytest.raises(ConfigError, match=words):
        open_corpus(tmp_path)


def test_one_shard_under_two_names_is_one_shard(tmp_path):
    write_tar(tmp_path / "a.tar", [("0.png", tile(0))])
    write_table(tmp_path / "manifest.csv", "shard key use\na.tar 0 0\n./a.tar 0 1")
    with pytest.raises(ConfigError, match="line 2 and line 3 name one image"):
        open_corpus(tmp_path)


def test_shards_may_have_keys_in_common_and_be_in_folders(tmp_path):
    (tmp_path / "more").mkdir()
    write_tar(tmp_path / "a.tar", [("0.png", tile(1))])
    write_tar(tmp_path / "more/a.tar", [("0.png", tile(2))])
    write_table(tmp_path / "manifest.csv", "shard key slide\na.tar 0 s\nmore/a.tar 0 s")
    assert tiles_of(open_corpus(tmp_path)) == {"a.tar/0": 1, "more/a.tar/0": 2}
    write_table(tmp_path / "slides.csv", "slide shard first tiles\ns a.tar 0 1\ns more/a.tar 0 1")
    assert tiles_of(open_corpus(tmp_path)) == {"s/a.tar#0": 1, "s/more/a.tar#0": 2}


def test_links_are_the_images_that_they_point_to(tmp_path):
    members = [
        ("a/0.png", tile(3)),
        link("b/1.png", "a/0.png", tarfile.LNKTYPE),
        link("b/2.png", "../a/0.png", tarfile.SYMTYPE),
        link("b/3.png", "1.png", tarfile.SYMTYPE),
        link("b/4.png", "/elsewhere/0.png", tarfile.SYMTYPE),
        link("b/5.png", "5.png", tarfile.SYMTYPE),
    ]
    found = members_of(write_tar(tmp_path / "a.tar", members))
    assert found.names == ["a/0.png", "b/1.png", "b/2.png", "b/3.png"]
    assert found.left_out == {"link to nothing in the tar": 2}
    write_table(tmp_path / "manifest.csv", "shard key\na.tar a/0\na.tar b/1\na.tar b/2\na.tar b/3")
    assert set(tiles_of(open_corpus(tmp_path)).values()) == {3}


def test_a_link_to_a_tile_that_must_not_be_used_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", [("0.png", tile(3)), link("1.png", "0.png", tarfile.LNKTYPE)])
    write_table(tmp_path / "manifest.csv", "shard key use\na.tar 0 0\na.tar 1 1")
    with pytest.raises(ConfigError, match="line 2 and line 3 name one image"):
        open_corpus(tmp_path)


def test_concatenated_tars_are_read_to_the_end(tmp_path):
    parts = [
        write_tar(tmp_path / f"{i}.part", [(f"{i}.png", tile(i))]).read_bytes() for i in range(3)
    ]
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    found = members_of(tmp_path / "a.tar")
    assert (found.names, found.damage) == (["0.png", "1.png", "2.png"], "")


def test_damage_is_named_and_ends_the_reading(tmp_path):
    shard = write_tar(tmp_path / "a.tar", [(f"{i}.png", tile(i)) for i in range(3)])
    data = bytearray(shard.read_bytes())
    data[1024:1536] = b"x" * 512
    shard.write_bytes(data)
    assert (members_of(shard).names, members_of(shard).damage) == (
        ["0.png"],
        "is damaged at byte 1024",
    )
    shard.write_bytes(gzip.compress(bytes(data)))
    assert members_of(shard).damage == "is compressed (gzip): unpack it"
    shard.write_bytes(b"no tar" * 200)
    assert members_of(shard).damage == "is no tar"


def test_negative_sizes_end_the_reading(tmp_path):
    info = tarfile.TarInfo("0.png")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\0"  # base 256, negative
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"\0" * 1024)
    assert members_of(tmp_path / "a.tar").damage == "is damaged at byte 0"


@pytest.fixture
def archive(tmp_path):
    write_tar(tmp_path / "a.tar", [(f"{i}.png", tile(i)) for i in range(4)])
    write_table(tmp_path / "slides.csv", "slide shard first tiles\nsA a.tar 0 2\nsB a.tar 2 2")
    return tmp_path


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            "sA a.tar 0 2\nsB a.tar 2 3",
            r"line 3: slide sB has 3 tiles of a\.tar from 2, but the shard has 4 images",
        ),
        (
            "sA a.tar 0 2\nsB a.tar 1 2",
            (
                r"line 2 and line 3 overlap: slide sA has 2 tiles of a\.tar from 0, slide sB has 2"
                r" .* from 1"
            ),
        ),
        ("sA a.tar 0 2\nsA a.tar 0 2", "line 2 and line 3 overlap"),
        ("sA a.tar 0 4\nsB a.tar 9 0\nsC a.tar 3 1", "line 2 and line 4 overlap"),
        ("sA a.tar 0 2\nsB a.tar 2 two", "line 3: tiles is 'two'"),
        ("sA a.tar 0 2\nsB a.tar -2 2", "line 3: first is '-2'"),
        ("- a.tar 0 2", "line 2: every row needs the names of a slide"),
        ("NaN a.tar 0 2", "line 2: every row needs the names of a slide"),
        ("sA - 0 2", "line 2: every row needs the names of a slide and of a shard"),
    ],
)
def test_invalid_ranges_are_refused(archive, rows, words, indexed):
    if indexed:
        write_index(archive / "a.tar")
    write_table(archive / "slides.csv", f"slide shard first tiles\n{rows}")
    with pytest.raises(ConfigError, match=words):
        open_corpus(archive)


@pytest.mark.parametrize(
    ("file", "columns"), [("slides.csv", "slide shard first tiles"), ("manifest.csv", "shard key")]
)
def test_tables_without_rows_hold_no_tiles(tmp_path, file, columns):
    write_table(tmp_path / file, columns)
    with pytest.raises(ConfigError, match="no tiles in"):
        open_corpus(tmp_path)


def test_a_range_that_overlaps_an_unused_one_is_refused(archive):
    write_table(
        archive / "slides.csv", "slide shard first tiles use\nsA a.tar 0 3 1\nsB a.tar 2 2 no"
    )
    with pytest.raises(ConfigError, match="line 2 and line 3 overlap"):
        open_corpus(archive)


def test_a_truncated_shard_gives_its_whole_tiles(archive, caplog):
    (archive / "a.tar").write_bytes((archive / "a.tar").read_bytes()[: 3 * 1024])
    assert tiles_of(open_corpus(archive)) == {"sA/a.tar#0": 0, "sA/a.tar#1": 1, "sB/a.tar#2": 2}
    assert "is cut short: its first 3 tiles are whole, 1 others are skipped" in caplog.text


def test_a_slide_of_two_stains_is_refused(archive):
    write_table(
        archive / "slides.csv",
        "slide shard first tiles stain_class\ns a.tar 0 2 he\ns a.tar 2 2 IHC",
    )
    with pytest.raises(ConfigError, match="line 2 and line 3: slide 's' is he and ihc"):
        open_corpus(archive)


def raw_index(shard):
    """The index in the first format: only ranges, of all members."""
    np.save(index_path(shard), np.array([[512, 1], [1536, 1], [512, 1], [1536, 1]]))


def swapped(shard):
    """Replace a tar that has an index by another of the same size."""
    write_index(shard)
    write_tar(shard, [("x.json", tile(9)), *((f"{i}.png", tile(i)) for i in range(4))])


@pytest.mark.parametrize(
    "spoil",
    [
        raw_index,
        swapped,
        lambda shard: index_path(shard).write_bytes(b"no index"),
        lambda shard: np.save(index_path(shard), np.zeros((3, 3))),
        lambda shard: index_path(shard).write_bytes(
            write_index(shard).read_bytes().replace(b"(6, 2), ", b"(6, 2), (")
        ),
        lambda shard: index_path(write_index(shard).parent / shard.name).write_bytes(
            index_path(shard).read_bytes()[:-16]
        ),
        lambda shard: (write_index(shard), os.utime(shard, ns=(1, 1))),
    ],
)
def test_an_index_of_another_tar_is_not_used(archive, caplog, spoil):
    spoil(archive / "a.tar")
    assert list(tiles_of(open_corpus(archive)).values()) == [0, 1, 2, 3]
    assert "a.tar.index.npy is damaged, or of another tar" in caplog.text


@pytest.mark.parametrize("wrong", [(512, 1 << 60), (1 << 60, 5), (512, -1), (-512, 5)])
def test_an_impossible_range_is_an_error_of_its_tile(archive, wrong):
    data = write_index(archive / "a.tar").read_bytes()
    index_path(archive / "a.tar").write_bytes(data[:-16] + np.array(wrong, dtype="<i8").tobytes())
    with pytest.raises(ImageError, match=r"tile sB/a\.tar#3 cannot be decoded"):
        open_corpus(archive).read(3)


def test_an_index_is_used_while_its_tar_is_the_same(archive, monkeypatch):
    write_index(archive / "a.tar")
    monkeypatch.setattr(shards_module, "members_of", None)
    assert ranges_of(archive / "a.tar").tolist() == members_of(archive / "a.tar").ranges.tolist()


def test_a_replaced_tar_is_read_again(archive):
    assert tiles_of(open_corpus(archive))["sA/a.tar#0"] == 0
    new = write_tar(archive / "new", [(f"{i}.png", tile(9 - i)) for i in range(4)])
    new.replace(archive / "a.tar")
    assert tiles_of(open_corpus(archive))["sA/a.tar#0"] == 9


def test_indices_are_written_for_undamaged_shards(archive, capsys):
    (archive / "more").mkdir()
    whole = write_tar(archive / "more/b.tar", [("0.png", tile(0))])
    (archive / "a.tar").write_bytes(whole.read_bytes()[:600])
    assert main([str(archive)]) == 3
    assert "a.tar is cut short: no index is written for it" in capsys.readouterr().out
    assert [p.name for p in archive.rglob("*.npy")] == ["b.tar.index.npy"]
    assert main([str(archive / "nowhere")]) == 2
    whole.rename(archive / "more/b.TAR.old")
    assert main([str(archive / "more")]) == 1


def test_an_index_is_written_whole_or_not_at_all(archive, monkeypatch):
    write_index(archive / "a.tar")
    before = index_path(archive / "a.tar").read_bytes()

    def fail(self, data):
        with self.open("wb") as file:
            file.write(data[:40])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(StoreError, match="disk is full"):
        write_index(archive / "a.tar")
    assert index_path(archive / "a.tar").read_bytes() == before
    assert {p.name for p in archive.iterdir()} == {"a.tar", "a.tar.index.npy", "slides.csv"}


@pytest.mark.parametrize("text", ["slide,shard,first,tiles\n", "slide,shard,first,tiles\n\n"])
def test_an_empty_table_is_refused(tmp_path, text):
    (tmp_path / "slides.csv").write_text(text)
    with pytest.raises(ConfigError, match="no tiles"):
        open_corpus(tmp_path)


@pytest.mark.parametrize("table", ["slides.csv", "manifest.csv"])
def test_a_shard_of_an_impossible_name_is_missing(tmp_path, table):
    rows = {
        "slides.csv": "slide shard first tiles\ns SHARD 0 1",
        "manifest.csv": "shard key slide\nSHARD k s",
    }
    write_table(tmp_path / table, rows[table].replace("SHARD", "a" * 5000 + ".tar"))
    with pytest.raises(ConfigError, match="no tiles"):
        open_corpus(tmp_path)

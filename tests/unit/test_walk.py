"""Folders are walked in one way: links are followed, loops cut, hidden files left out."""

import os
import sys
from pathlib import Path

import pytest

from pathencoder.walk import NEITHER, no_such, printable, walk


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def names(found, root):
    return [p.relative_to(root).as_posix() for p in found.files]


def test_files_come_in_natural_order(tmp_path):
    for name in ("b/tile10.png", "b/tile2.png", "a.png", "B2.png"):
        touch(tmp_path / name)
    assert names(walk(tmp_path), tmp_path) == ["a.png", "b/tile2.png", "b/tile10.png", "B2.png"]


def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path):
    for name in ("x.png", "._x.png", ".ipynb_checkpoints/x-checkpoint.png"):
        touch(tmp_path / name)
    found = walk(tmp_path)
    assert names(found, tmp_path) == ["x.png"]
    assert found.hidden == 2


def test_links_are_followed_and_keep_their_names(tmp_path):
    touch(tmp_path / "store/3f9a")
    touch(tmp_path / "disk2/b.svs")
    root = tmp_path / "project"
    root.mkdir()
    (root / "patient.svs").symlink_to(tmp_path / "store/3f9a")
    (root / "more").symlink_to(tmp_path / "disk2")
    assert names(walk(root), root) == ["more/b.svs", "patient.svs"]


def test_a_folder_that_is_linked_twice_is_listed_twice(tmp_path):
    touch(tmp_path / "blob/t.png")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).symlink_to(tmp_path / "blob")
    assert names(walk(root), root) == ["a/t.png", "b/t.png"]


def test_loops_are_cut_and_named(tmp_path):
    touch(tmp_path / "a/t.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    found = walk(tmp_path)
    assert names(found, tmp_path) == ["a/t.png"]
    assert {
        (o.path.relative_to(tmp_path).as_posix(), o.reason.split(":")[0].split(" (")[0])
        for o in found.left_out
    } == {
        ("a/up", "a link to a folder that contains it"),
        ("itself", "a link to nothing"),
    }


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "gone.svs").symlink_to(tmp_path / "away.svs")
    (left,) = walk(tmp_path).left_out
    assert left.path == tmp_path / "gone.svs"
    assert "a link to nothing" in left.reason
    assert "away.svs" in left.reason


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every folder"
)
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    touch(tmp_path / "shut/t.png")
    (tmp_path / "shut").chmod(0)
    try:
        (left,) = walk(tmp_path).left_out
    finally:
        (tmp_path / "shut").chmod(0o700)
    assert "cannot be read" in left.reason


@pytest.mark.skipif(
    sys.platform in ("darwin", "win32"), reason="these file systems refuse such names"
)
def test_names_that_are_not_utf8_are_printable(tmp_path):
    touch(tmp_path / os.fsdecode(b"M\xfcller.png"))
    (file,) = walk(tmp_path).files
    assert file.exists()
    assert printable(file.name) == "M\\xfcller.png"
    printable(file).encode("utf-8")


def test_printable_does_not_change_valid_names():
    for name in ("tile.png", "Mu\u0308ller.png", "a\\xfcb", "切片.svs"):
        assert printable(name) == name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this file system")
def test_pipes_and_devices_are_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    found = walk(tmp_path)
    assert found.files == []
    assert [(left.path.name, left.reason) for left in found.left_out] == [
        ("pipe.png", NEITHER),
        ("zeros.png", NEITHER),
    ]


def test_advice_is_for_urls_and_for_paths_of_windows():
    assert no_such("file", "tiles/1.png") == "no such file"
    advice = "backslashes and drive letters are not of paths"
    for path in ("C:/tiles/1.png", "/data/C:\\tiles\\1.png", "tiles\\1.png"):
        assert (advice in no_such("file", path)) == (os.name != "nt")
    assert "download it first" in no_such("file", Path("s3://bucket/1.png"))

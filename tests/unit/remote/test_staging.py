"""The scratch folder: its budget, its order, and that nothing stays."""

import os
import threading

import pytest

from pathencoder.errors import SlideError
from pathencoder.locks import Lock
from pathencoder.remote import staging
from pathencoder.remote.objects import Object
from pathencoder.remote.slides import RemoteSlide
from pathencoder.remote.staging import Scratch, Staging


def slide(name, size=1000, files=None):
    listed = files or (Object(name, size, '"1"', 5),)
    return RemoteSlide(f"s3://b/{name}", "s3://b", tuple(listed))


@pytest.fixture
def fetched(monkeypatch):
    """Downloads that write zeros; the names in their order, and the most bytes on disk."""
    names, lock = [], threading.Lock()

    def download(url, item, file, stop=None):
        with lock:
            names.append(item.name)
        if item.name.startswith("bad"):
            raise SlideError(f"{url}: made so")
        file.write_bytes(b"\0" * item.size)
        return item

    monkeypatch.setattr(staging, "download", download)
    return names


def size_of(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def test_slides_come_in_their_order_within_the_budget_and_nothing_stays(tmp_path, fetched):
    slides = [slide(f"{i}.svs", 400_000) for i in range(6)]
    with Staging(slides, scratch=Scratch(tmp_path, 0.001)) as held:
        for one in slides:
            with held.staged(one) as here:
                assert here.path.name == one.files[0].name
                assert here.path.stat().st_size == 400_000
                assert size_of(tmp_path) <= 1_000_000
            assert not here.path.exists()
    assert fetched == [f"{i}.svs" for i in range(6)]
    assert list(tmp_path.iterdir()) == []


def test_a_slide_that_fails_does_not_stop_the_others(tmp_path, fetched):
    slides = [slide("a.svs"), slide("bad.svs"), slide("c.svs")]
    with Staging(slides, scratch=Scratch(tmp_path)) as held:
        with held.staged(slides[0]):
            pass
        with pytest.raises(SlideError, match="made so"), held.staged(slides[1]):
            pass
        with held.staged(slides[2]) as here:
            assert here.path.exists()


def test_a_slide_larger_than_the_budget_or_the_disk_is_refused(tmp_path, fetched, monkeypatch):
    slides = [slide("a.svs", 2_000_000)]
    with (
        Staging(slides, scratch=Scratch(tmp_path, 0.001)) as held,
        pytest.raises(SlideError, match="give more with --scratch-gb"),
        held.staged(slides[0]),
    ):
        pass
    monkeypatch.setattr(staging, "_SPARE", 1 << 60)
    with (
        Staging(slides, scratch=Scratch(tmp_path)) as held,
        pytest.raises(SlideError, match="choose another --scratch"),
        held.staged(slides[0]),
    ):
        pass
    assert fetched == []


def test_what_is_not_needed_is_not_fetched_unless_it_is_asked_for(tmp_path, fetched):
    slides = [slide("a.svs"), slide("b.svs")]
    with Staging(slides, scratch=Scratch(tmp_path), needed=lambda s: s == slides[1]) as held:
        held.release(slides[0])
        with held.staged(slides[1]):
            pass
        assert fetched == ["b.svs"]
        with held.staged(slides[0]) as here:
            assert here.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_files_of_one_slide_keep_their_folders(tmp_path, fetched):
    files = [Object("x/m.mrxs", 10, "", 1), Object("x/m/Index.dat", 10, "", 2)]
    one = slide("x/m.mrxs", files=files)
    with Staging([one], scratch=Scratch(tmp_path)) as held, held.staged(one) as here:
        assert (here.path.parent / "m" / "Index.dat").exists()
    folder = RemoteSlide("s3://b/x", "s3://b", tuple(files), whole_folder=True)
    with Staging([folder], scratch=Scratch(tmp_path)) as held, held.staged(folder) as here:
        assert here.path.is_dir()


@pytest.mark.parametrize("name", ["../a.svs", "x/../../a.svs", "/etc/a.svs", "x//a.svs"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, fetched, name):
    one = slide(name)
    with (
        Staging([one], scratch=Scratch(tmp_path)) as held,
        pytest.raises(SlideError, match="no name of a file"),
        held.staged(one),
    ):
        pass
    assert fetched == []


def test_an_early_end_leaves_nothing(tmp_path, fetched):
    slides = [slide(f"{i}.svs", 600_000) for i in range(4)]
    with Staging(slides, scratch=Scratch(tmp_path, 0.001)) as held, held.staged(slides[0]):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_runs_are_deleted_and_those_in_use_stay(tmp_path, fetched):
    killed, in_use, new = (tmp_path / f"pathencoder-scratch-{n}" for n in ("k", "u", "n"))
    for folder in (killed, in_use, new):
        folder.mkdir()
        (folder / "a.svs").write_bytes(b"x")
    (killed / "lock").touch()
    lock = Lock(in_use / "lock", "busy")
    with Staging([], scratch=Scratch(tmp_path)):
        assert not killed.exists()
        assert in_use.exists()
        assert new.exists()
    lock.release()


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write anywhere")
def test_a_scratch_folder_that_cannot_be_made_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(SlideError, match="choose another --scratch"),
        Staging([], scratch=Scratch(tmp_path / "a")),
    ):
        pass


def test_the_version_of_a_slide_changes_with_any_of_its_files():
    files = [Object("a.mrxs", 10, '"1"', 5), Object("a/x.dat", 10, '"2"', 6)]
    first = slide("a.mrxs", files=files).version
    assert first[:2] == (20, 6)
    assert slide("a.mrxs", files=files[::-1]).version == first
    assert slide("a.mrxs", files=[files[0], Object("a/x.dat", 10, '"3"', 6)]).version != first

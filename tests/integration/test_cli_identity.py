"""What passes for done before.

Never the rows of another image, and never the loss of what is there.
"""

import os
import shutil

import numpy as np
import pytest
import small_encoders
from feature_damage import damage_rows
from PIL import Image

from pathencoder.cli.main import run
from pathencoder.encoder import load_encoder
from pathencoder.features.journal import Journal
from pathencoder.features.store import read_features


def save(path, seed):
    """Uncompressed, so that all files have one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small_encoders.picture(seed, 80, 80)).save(path)


@pytest.fixture
def cohort(tmp_path):
    """Two folders of the same names and sizes, of which one image is the same."""
    for name, seeds in (("A", (1, 2, 3)), ("B", (1, 5, 6))):
        for n, seed in enumerate(seeds):
            save(tmp_path / name / "tiles" / f"{n}.bmp", seed)
    return tmp_path


@pytest.fixture
def rows_of(folder):
    """The right rows of a folder or file."""
    encoder = load_encoder(folder, device="cpu")
    return lambda path: encoder.encode(path, progress=False)


def kept(tmp_path, name="tiles"):
    return read_features(tmp_path / "out" / f"{name}.h5")


def test_another_folder_of_the_same_names_is_refused_by_name(cohort, encode, forwards):
    assert encode(cohort / "A" / "tiles")[0] == 0
    before = kept(cohort)
    forwards.clear()
    status, text, _ = encode(cohort / "B" / "tiles")
    assert (status, forwards) == (1, [])
    for word in (str(cohort / "A" / "tiles"), str(cohort / "B" / "tiles"), "1.bmp", "--overwrite"):
        assert word in text, word
    assert np.array_equal(kept(cohort).rows, before.rows)


def test_another_folder_of_other_names_loses_no_row(cohort, encode):
    encode(cohort / "A" / "tiles")
    save(cohort / "C" / "tiles" / "9.bmp", 9)
    assert encode(cohort / "C" / "tiles")[0] == 1
    assert kept(cohort).keys == ["0.bmp", "1.bmp", "2.bmp"]


@pytest.mark.parametrize("times", ["new", "set back"])
def test_an_image_replaced_in_place_is_embedded_anew(cohort, encode, forwards, rows_of, times):
    encode(cohort / "A" / "tiles")
    path = cohort / "A" / "tiles" / "1.bmp"
    before = path.stat()
    shutil.copyfile(cohort / "B" / "tiles" / "1.bmp", path)
    if times == "set back":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    forwards.clear()
    assert encode(cohort / "A" / "tiles")[0] == 0
    assert len(forwards) == 1
    assert np.array_equal(kept(cohort).rows, rows_of(cohort / "A" / "tiles"))


def test_a_replaced_image_that_cannot_be_read_has_no_row(cohort, encode):
    encode(cohort / "A" / "tiles")
    (cohort / "A" / "tiles" / "1.bmp").write_bytes(b"no image")
    assert encode(cohort / "A" / "tiles")[0] == 3
    assert kept(cohort).keys == ["0.bmp", "2.bmp"]
    assert [f.part for f in kept(cohort).failures] == ["1.bmp"]


@pytest.mark.parametrize("grown", [False, True])
def test_a_moved_folder_is_resumed_with_a_note(cohort, encode, forwards, rows_of, grown):
    encode(cohort / "A" / "tiles")
    (cohort / "moved").mkdir()
    (cohort / "A" / "tiles").rename(cohort / "moved" / "tiles")
    if grown:
        save(cohort / "moved" / "tiles" / "new.bmp", 30)
    forwards.clear()
    status, text, _ = encode(cohort / "moved" / "tiles")
    assert (status, len(forwards)) == (0, int(grown))
    assert f"made from {cohort / 'A' / 'tiles'}, whose contents are the same" in text
    assert np.array_equal(kept(cohort).rows, rows_of(cohort / "moved" / "tiles"))


def test_touched_images_are_not_embedded_again(cohort, encode, forwards):
    encode(cohort / "A" / "tiles")
    (cohort / "A" / "tiles" / "0.bmp").touch()
    forwards.clear()
    assert "done before" in encode(cohort / "A" / "tiles")[1]
    assert forwards == []


def test_several_images_of_a_folder_follow_the_same_rule(cohort, encode, rows_of):
    assert encode(*(cohort / "A" / "tiles" / f"{n}.bmp" for n in (0, 1)))[0] == 0
    assert encode(*(cohort / "B" / "tiles" / f"{n}.bmp" for n in (1, 2)))[0] == 1
    found = kept(cohort)
    assert found.keys == ["0.bmp", "1.bmp"]
    assert np.array_equal(found.rows[1], rows_of(cohort / "A" / "tiles" / "1.bmp")[0])


def test_one_image_follows_the_same_rule(cohort, encode, rows_of):
    assert encode(cohort / "A" / "tiles" / "0.bmp")[0] == 0
    # 0.bmp is the same in both folders: one was copied
    assert "whose contents are the same" in encode(cohort / "B" / "tiles" / "0.bmp")[1]
    (cohort / "C" / "tiles").mkdir(parents=True)
    shutil.copyfile(cohort / "A" / "tiles" / "1.bmp", cohort / "C" / "tiles" / "0.bmp")
    assert encode(cohort / "C" / "tiles" / "0.bmp")[0] == 1
    found = kept(cohort, "0")
    assert np.array_equal(found.rows, rows_of(cohort / "A" / "tiles" / "0.bmp"))


def test_what_failed_among_single_images_stays_listed(cohort, encode):
    (cohort / "A" / "tiles" / "1.bmp").write_bytes(b"no image")
    encode(cohort / "A" / "tiles" / "0.bmp", cohort / "A" / "tiles" / "1.bmp")
    assert encode(cohort / "A" / "tiles" / "2.bmp")[0] == 0
    assert [f.part for f in kept(cohort).failures] == ["1.bmp"]
    assert "1.bmp" in (cohort / "out" / "failures.csv").read_text()


@pytest.fixture
def interrupted(monkeypatch):
    """Ends work after two rows."""
    real = Journal.append

    def append(self, key, row, tag=b""):
        real(self, key, row, tag)
        if len(self) == 2:
            raise KeyboardInterrupt

    def once(call):
        monkeypatch.setattr(Journal, "append", append)
        assert call()[0] == 130
        monkeypatch.setattr(Journal, "append", real)

    return once


def test_unfinished_work_of_another_folder_is_refused(cohort, encode, interrupted):
    interrupted(lambda: encode(cohort / "A" / "tiles"))
    status, text, _ = encode(cohort / "B" / "tiles")
    assert status == 1
    assert "unfinished rows of" in text
    assert str(cohort / "A" / "tiles") in text


def test_unfinished_work_is_resumed_with_images_as_they_are_now(
    cohort, encode, interrupted, forwards, rows_of
):
    interrupted(lambda: encode(cohort / "A" / "tiles"))
    shutil.copyfile(cohort / "B" / "tiles" / "1.bmp", cohort / "A" / "tiles" / "1.bmp")
    forwards.clear()
    assert encode(cohort / "A" / "tiles")[0] == 0
    assert len(forwards) == 2
    assert np.array_equal(kept(cohort).rows, rows_of(cohort / "A" / "tiles"))


def test_unfinished_work_of_a_moved_folder_is_resumed(
    cohort, encode, interrupted, forwards, rows_of
):
    interrupted(lambda: encode(cohort / "A" / "tiles"))
    (cohort / "moved").mkdir()
    (cohort / "A" / "tiles").rename(cohort / "moved" / "tiles")
    forwards.clear()
    assert encode(cohort / "moved" / "tiles")[0] == 0
    assert len(forwards) == 1
    assert np.array_equal(kept(cohort).rows, rows_of(cohort / "moved" / "tiles"))


def test_damaged_outputs_and_those_of_slides_cost_their_input_alone(cohort, encode, folder, capsys):
    (cohort / "out").mkdir()
    (cohort / "out" / "A.h5").write_bytes(b"damaged")
    line = [
        "encode",
        str(cohort / "A"),
        str(cohort / "B"),
        "--out",
        str(cohort / "out"),
        "--encoder",
        str(folder),
        "--device",
        "cpu",
    ]
    assert run(line) == 3
    text = capsys.readouterr().out
    assert "A.h5 is damaged" in text
    assert "B: done, 3 embeddings" in text


@pytest.mark.parametrize("change", ["new", "gone"])
def test_damaged_rows_are_not_copied_into_a_new_file(cohort, encode, rows_of, change):
    tiles = cohort / "A" / "tiles"
    assert encode(tiles)[0] == 0
    damage_rows(cohort / "out" / "tiles.h5")
    damaged = (cohort / "out" / "tiles.h5").read_bytes()
    if change == "new":
        save(tiles / "9.bmp", 9)
    else:
        (tiles / "0.bmp").unlink()
    status, text, _ = encode(tiles)
    assert status == 1
    assert "tiles.h5 is damaged: its rows are not what was written. Delete it" in text
    assert (cohort / "out" / "tiles.h5").read_bytes() == damaged
    (cohort / "out" / "tiles.h5").unlink()
    assert encode(tiles)[0] == 0
    assert np.array_equal(kept(cohort).rows, rows_of(tiles))


def test_rows_of_a_folder_that_is_not_there_now_are_kept(cohort, encode, forwards):
    tiles, away = cohort / "A" / "tiles", cohort / "away"
    save(cohort / "mounted" / "7.bmp", 7)
    save(tiles / "more" / "8.bmp", 8)
    (tiles / "linked").symlink_to(cohort / "mounted")
    assert encode(tiles)[0] == 0
    before = kept(cohort)
    (cohort / "mounted").rename(away)
    status, text, _ = encode(tiles)
    assert status == 0
    assert "rows of images in places that cannot be read now are kept: 1" in text
    assert np.array_equal(kept(cohort).rows, before.rows)
    (tiles / "more" / "8.bmp").unlink()  # that can be seen
    assert "are kept: 1" in encode(tiles)[1]
    assert sorted(kept(cohort).keys) == sorted(set(before.keys) - {"more/8.bmp"})
    away.rename(cohort / "mounted")
    forwards.clear()
    assert ": done before" in encode(tiles)[1]
    (tiles / "linked").unlink()
    assert encode(tiles)[0] == 0
    assert sorted(kept(cohort).keys) == ["0.bmp", "1.bmp", "2.bmp"]
    assert forwards == []

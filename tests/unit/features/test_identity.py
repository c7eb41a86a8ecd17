"""What files are known by."""

import pytest
from dicom_headers import dicom

from pathencoder.errors import StoreError
from pathencoder.features import identity
from pathencoder.features.before import check_slide
from pathencoder.features.identity import (
    SlideIdentity,
    Stamp,
    Stat,
    earlier_content,
    hash_bytes,
    hash_file,
    identify_slide,
    place_of,
    stat_of,
)


def test_stamps_pack_and_unpack():
    stamp = Stamp(Stat(5, 2**62, -3), hash_bytes(b"x"))
    assert Stamp.unpack(stamp.pack()) == stamp
    assert len(stamp.pack()) == identity.TAG_BYTES


def test_hashes_of_bytes_and_files_agree(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert hash_file(tmp_path / "a") == hash_bytes(b"abc" * 1000)
    assert (hash_file(tmp_path / "gone"), stat_of(tmp_path / "gone").size) == (b"", -1)


def test_places_are_links_not_their_targets(tmp_path):
    (tmp_path / "blob").touch()
    (tmp_path / "case_1.svs").symlink_to(tmp_path / "blob")
    assert place_of(tmp_path / "case_1.svs") == str(tmp_path / "case_1.svs")


def test_a_large_slide_is_known_by_samples_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_WHOLE", 1000)
    monkeypatch.setattr(identity, "_END", 100)
    monkeypatch.setattr(identity, "_SAMPLE", 100)
    data = bytearray(100 * 130)
    (tmp_path / "a").write_bytes(data)
    first = identify_slide(tmp_path / "a").content
    for place in (0, len(data) - 1, len(data) // 2):
        changed = bytearray(data)
        changed[place : place + 110] = b"x" * len(changed[place : place + 110])
        (tmp_path / "a").write_bytes(changed)
        assert identify_slide(tmp_path / "a").content != first, place


def test_a_slide_of_several_files_is_known_by_all(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").write_bytes(b"index")
    (tmp_path / "s" / "Data0.dat").write_bytes(b"a")
    (tmp_path / "s" / "Data1.dat").write_bytes(b"b")
    first = identify_slide(tmp_path / "s.mrxs")
    assert first.stat.size == 7
    (tmp_path / "s" / "Data1.dat").write_bytes(b"c")
    assert identify_slide(tmp_path / "s.mrxs").content != first.content


def test_a_dicom_file_stands_for_its_series(tmp_path):
    for name, series in (("a1", "1"), ("a2", "1"), ("b", "2")):
        (tmp_path / f"{name}.dcm").write_bytes(dicom(series))
    first = identify_slide(tmp_path / "a1.dcm").content
    (tmp_path / "b.dcm").write_bytes(dicom("2", frame=b"changed!"))
    assert identify_slide(tmp_path / "a1.dcm").content == first
    (tmp_path / "a2.dcm").write_bytes(dicom("1", frame=b"changed!"))
    assert identify_slide(tmp_path / "a1.dcm").content != first


def test_a_vsi_slide_is_known_by_its_pixels_and_by_its_earlier_identity(tmp_path):
    slide, pixels = tmp_path / "s.vsi", tmp_path / "_s_" / "stack1" / "frame_t.ets"
    slide.write_bytes(b"index")
    alone = identify_slide(slide)
    assert earlier_content(slide) == alone.content
    pixels.parent.mkdir(parents=True)
    pixels.write_bytes(b"a" * 9)
    first = identify_slide(slide)
    assert first.stat.size == 14
    assert check_slide(slide, first, tmp_path / "s.h5", None) == []
    earlier = SlideIdentity(alone.path, Stat(5, 1, 1), alone.content)
    assert check_slide(slide, earlier, tmp_path / "s.h5", None) == []
    pixels.write_bytes(b"b" * 9)
    assert identify_slide(slide).content != first.content
    with pytest.raises(StoreError, match="before that file changed"):
        check_slide(slide, first, tmp_path / "s.h5", None)
    assert earlier_content(tmp_path / "s.svs") is None

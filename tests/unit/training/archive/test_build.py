"""Manifests of folders: what is read, kept, guessed, excluded; edits; restarts; bad slides."""

import hashlib
import os

import pytest
from skimage import data
from small_archive import edit_manifest
from small_slides import section, write_tiff

from pathencoder.errors import ConfigError, SlideError
from training.archive import build as module
from training.archive.about import read_about
from training.archive.build import Options, build, record
from training.archive.cache import Cache, cache_of
from training.archive.facts import measure
from training.archive.item import Item
from training.archive.measuring import measure_all
from training.archive.privacy import is_code
from training.archive.rows import Defaults
from training.archive.sources.folder import Folder
from training.archive.store import csv_of, read_manifest

pytestmark = pytest.mark.full
QUICK = Options(processes=1)


@pytest.fixture
def archive(tmp_path):
    """A folder of slides, one of which is damaged and one of which has no scale."""
    folder = tmp_path / "archive"
    (folder / "in").mkdir(parents=True)
    write_tiff(folder / "1_HE.tif", section(700, 500))
    write_tiff(folder / "2_CD3.tif", section(700, 500, seed=1))
    write_tiff(folder / "in" / "2_CD3.tif", section(600, 500))
    (folder / "bad.svs").write_bytes(b"no slide")
    (folder / "note.txt").write_text("x")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "m.parquet"


def by_id(built):
    return {row.source_id: row for row in built.manifest.rows}


def edit(out, source_id, **values):
    edit_manifest(out, source_id, by="source_id", **values)


def test_a_folder_becomes_a_manifest(archive, out):
    built = build([Folder(archive)], out, QUICK)
    rows = by_id(built)
    assert set(rows) == {"1_HE.tif", "2_CD3.tif", "in/2_CD3.tif", "bad.svs"}
    row = rows["1_HE.tif"]
    assert row.sha256 == hashlib.sha256((archive / "1_HE.tif").read_bytes()).hexdigest()
    assert row.size == (archive / "1_HE.tif").stat().st_size
    assert (row.width, row.height) == (700, 500)
    assert row.mpp_value == pytest.approx(0.5)
    assert row.mpp_from
    assert (row.stain_class, row.stain, row.stain_from) == ("he", "H&E", "name")
    assert rows["2_CD3.tif"].stain == "CD3"
    assert rows["bad.svs"].problem
    assert len({r.slide for r in rows.values()}) == 4
    assert rows["2_CD3.tif"].slide == "2_CD3"
    assert rows["in/2_CD3.tif"].slide.startswith("2_CD3-")
    assert built.measured == 4
    assert built.left_out == ["1 file is no slide (.txt 1)"]
    assert read_manifest(out).rows == built.manifest.rows
    assert any("no patient" in note for note in built.notes)
    (named,) = (note for note in built.notes if note.startswith("not usable, "))
    assert named.endswith(": 1 (bad)")
    for i in range(5):
        (archive / f"empty{i}.svs").touch()
    notes = build([Folder(archive)], out, QUICK).notes
    assert "not usable, the file is empty: 5 (empty0, empty1, empty2 and 2 more)" in notes


def test_a_second_run_reads_no_file_and_writes_the_same_bytes(archive, out, monkeypatch):
    build([Folder(archive)], out, QUICK)
    before = out.read_bytes(), csv_of(out).read_bytes()
    monkeypatch.setattr(module, "measure_all", lambda tasks, _: pytest.fail(str(tasks)))
    assert build([Folder(archive)], out, QUICK).measured == 0
    assert (out.read_bytes(), csv_of(out).read_bytes()) == before


def test_a_file_that_changed_is_read_again_alone(archive, out):
    first = by_id(build([Folder(archive)], out, QUICK))
    write_tiff(archive / "1_HE.tif", section(800, 500))
    built = build([Folder(archive)], out, QUICK)
    assert built.measured == 1
    assert by_id(built)["1_HE.tif"].sha256 != first["1_HE.tif"].sha256
    assert by_id(built)["1_HE.tif"].width == 800


def test_a_killed_run_keeps_what_it_read(archive, out, monkeypatch):
    def first_alone(tasks, _):
        task = tasks[0]
        facts = measure(task.path, task.size, task.modified, hashed=True, look=task.look)
        yield [(task.key, facts)]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure_all", first_alone)
    with pytest.raises(KeyboardInterrupt):
        build([Folder(archive)], out, QUICK)
    assert not out.exists()
    with cache_of(out).open("a") as stream:
        stream.write('["folder:/x", "cut off')
    monkeypatch.setattr(module, "measure_all", measure_all)
    assert build([Folder(archive)], out, QUICK).measured == 3


def test_edits_stay_when_sources_are_added(archive, out, tmp_path):
    build([Folder(archive)], out, QUICK)
    edit(out, "1_HE.tif", stain_class="special", stain="PAS", organ="lung", use="0", note="mine")
    other = tmp_path / "other"
    other.mkdir()
    write_tiff(other / "3_HE.tif", section(600, 500))
    built = build([Folder(archive), Folder(other)], out, QUICK)
    row = by_id(built)["1_HE.tif"]
    kept = (row.stain_class, row.stain, row.organ, row.use, row.note)
    assert kept == ("special", "PAS", "lung", False, "mine")
    assert row.edits == {"stain_class", "stain", "organ", "use", "note"}
    assert "3_HE.tif" in by_id(built)
    assert by_id(build([Folder(other)], out, QUICK))["1_HE.tif"] == row


def test_a_new_slide_of_the_same_name_leaves_the_older_name_as_it_is(archive, out, tmp_path):
    build([Folder(archive)], out, QUICK)
    before = {row.key: row.slide for row in read_manifest(out).rows}
    first, other = archive / "0", tmp_path / "other"  # both are listed before the older ones
    for folder in (first, other):
        folder.mkdir()
    write_tiff(first / "1_HE.tif", section(600, 400))
    write_tiff(other / "2_cd3.tif", section(600, 300))
    for source in (Folder(archive), Folder(other)):
        built = build([source], out, QUICK)
    names = {row.key: row.slide for row in built.manifest.rows}
    assert {key: names[key] for key in before} == before
    new = [name for key, name in names.items() if key not in before]
    assert sorted(name[:-7] for name in new) == ["1_HE", "2_cd3"]


def test_rows_stay_when_their_source_fails_or_lists_them_no_more(archive, out, tmp_path):
    build([Folder(archive)], out, QUICK)
    (archive / "1_HE.tif").unlink()
    rows = by_id(build([Folder(archive)], out, QUICK))
    assert rows["1_HE.tif"].problem == "its source does not list it any more"
    archive.rename(tmp_path / "away")
    built = build([Folder(archive)], out, QUICK)
    assert [name for name, _ in built.failed] == [f"folder:{archive}"]
    assert by_id(built)["2_CD3.tif"].problem == ""


class Half:
    """A source that disappears while it lists."""

    name, local = "half:", False

    def items(self):
        yield Item("half:", "1", "half/1.svs", patient="MRN0098", described="Doe_HE.svs")
        raise SlideError("half: gone")


def test_a_source_that_disappears_costs_only_what_it_did_not_list(archive, out):
    built = build([Half(), Folder(archive)], out, QUICK)
    assert built.failed == [("half:", "half: gone")]
    row = by_id(built)["1"]
    assert is_code(row.patient)
    assert row.stain_class == "he"
    assert len(built.manifest.rows) == 5
    for file in (out, csv_of(out), cache_of(out)):
        assert b"MRN0098" not in file.read_bytes()
        assert b"Doe" not in file.read_bytes()


def test_a_table_states_patients_and_its_personal_columns_are_dropped(archive, out, tmp_path):
    table = tmp_path / "about.csv"
    table.write_text(
        "slide;patient;organ;Patient Name;birth_date;room\n"
        "1_HE.tif;MRN0098;colon;Jane Doe;1953-01-31;7\n"
        "in/2_CD3.tif;MRN0098;colon;Jane Doe;1953-01-31;7\n"
    )
    built = build([Folder(archive)], out, Options(about=read_about(table), processes=1))
    rows = by_id(built)
    a, b = rows["1_HE.tif"], rows["in/2_CD3.tif"]
    assert a.patient == b.patient
    assert a.split == b.split
    assert is_code(a.patient)
    assert a.organ == "colon"
    assert any("not read: patient name, birth_date, room" in note for note in built.notes)
    for word in (b"MRN0098", b"Doe", b"1953"):
        assert all(word not in f.read_bytes() for f in (out, csv_of(out), cache_of(out)))
    again = by_id(build([Folder(archive)], out, QUICK))
    assert again["1_HE.tif"].patient == a.patient


def test_a_number_that_a_person_types_becomes_a_code(archive, out):
    build([Folder(archive)], out, QUICK)
    edit(out, "1_HE.tif", patient="MRN0098")
    assert is_code(by_id(build([], out, QUICK))["1_HE.tif"].patient)
    assert b"MRN0098" not in csv_of(out).read_bytes()


def test_evaluation_sets_are_out_by_patient_and_by_file(archive, out, tmp_path):
    (archive / "1_HE.tif").rename(archive / "TCGA-FG-A4MU-01Z_HE.tif")
    digest = hashlib.sha256((archive / "2_CD3.tif").read_bytes()).hexdigest()
    own = tmp_path / "our_test.csv"
    own.write_text(f"sha256\n{digest}\n")
    built = build([Folder(archive)], out, Options(exclude=(own,), processes=1))
    rows = by_id(built)
    row = rows["TCGA-FG-A4MU-01Z_HE.tif"]
    assert (row.excluded, row.use) == ("lgg36 monuseg_test", False)
    assert (rows["2_CD3.tif"].excluded, rows["2_CD3.tif"].use) == ("our_test", False)
    assert rows["in/2_CD3.tif"].use
    edit(out, "2_CD3.tif", use="1")
    with pytest.raises(ConfigError, match="belongs to an evaluation set"):
        build([], out, QUICK)


def test_what_a_list_excluded_stays_out_in_runs_without_it(archive, out, tmp_path):
    table, own = tmp_path / "about.csv", tmp_path / "our test.csv"
    table.write_text("slide,patient\n1_HE.tif,MRN0098\n")
    digest = hashlib.sha256((archive / "2_CD3.tif").read_bytes()).hexdigest()
    own.write_text(f"patient,sha256\nMRN0098,\n,{digest}\n")
    listed = Options(about=read_about(table), exclude=(own,), processes=1)
    build([Folder(archive)], out, listed)
    other = tmp_path / "other.csv"
    other.write_text(f"sha256\n{'b' * 64}\n")
    record(out, {(f"folder:{archive}", "bad.svs"): "b" * 64}, Options(exclude=(other,)))
    cache_of(out).unlink()
    unhashed = Options(hashed=False, exclude=(own,), processes=1)
    for sources, options in (
        ([], QUICK),
        ([Folder(archive)], QUICK),
        ([Folder(archive)], unhashed),
    ):
        rows = by_id(build(sources, out, options))
        for name in ("1_HE.tif", "2_CD3.tif"):
            assert (rows[name].excluded, rows[name].use) == ("our_test", False)
        assert (rows["bad.svs"].excluded, rows["in/2_CD3.tif"].use) == ("other", True)


@pytest.mark.parametrize("listed_again", [True, False])
def test_a_list_that_was_corrected_takes_an_exclusion_back(archive, out, tmp_path, listed_again):
    own = tmp_path / "ours.csv"
    digest = hashlib.sha256((archive / "2_CD3.tif").read_bytes()).hexdigest()
    own.write_text(f"sha256\n{digest}\n")
    options = Options(exclude=(own,), processes=1)
    build([Folder(archive)], out, options)
    own.write_text(f"sha256\n{'a' * 64}\n")
    built = build([Folder(archive)] if listed_again else [], out, options)
    assert (by_id(built)["2_CD3.tif"].excluded, by_id(built)["2_CD3.tif"].use) == ("", True)
    assert any("any more" in note and "1 slide (2_CD3)" in note for note in built.notes)


def test_a_sha256_that_a_download_gave_is_recorded_and_checked(archive, out, tmp_path):
    build([Half()], out, QUICK)
    own = tmp_path / "our_test.csv"
    own.write_text(f"sha256\n{'a' * 64}\n")
    assert record(out, {("half:", "1"): "a" * 64}, Options(exclude=(own,))) == 1
    row = read_manifest(out).rows[0]
    assert (row.sha256, row.excluded, row.use) == ("a" * 64, "our_test", False)


def test_an_unnamed_stain_is_guessed_by_its_colours(tmp_path, out):
    folder = tmp_path / "archive"
    folder.mkdir()
    write_tiff(folder / "17.tif", data.immunohistochemistry())
    row = build([Folder(folder)], out, QUICK).manifest.rows[0]
    assert (row.stain_class, row.stain_from) == ("ihc", "pixels")
    assert 0.9 < row.stain_confidence <= 1
    for file in (out, csv_of(out), cache_of(out)):
        file.unlink()
    row = build([Folder(folder)], out, Options(look=False, processes=1)).manifest.rows[0]
    assert row.stain_class == "unknown"
    he = Options(look=False, processes=1, defaults=Defaults(stain_class="he"))
    assert build([Folder(folder)], out, he).manifest.rows[0].stain_class == "he"


def test_a_scale_that_a_person_gives_makes_a_slide_usable(tmp_path, out):
    folder = tmp_path / "archive"
    folder.mkdir()
    write_tiff(folder / "1_HE.tif", section(600, 500), mpp=None)
    assert build([Folder(folder)], out, QUICK).manifest.rows[0].problem.startswith("no scale")
    edit(out, "1_HE.tif", mpp_value="0.25")
    for _ in range(2):
        row = build([Folder(folder)], out, QUICK).manifest.rows[0]
        assert (row.mpp_value, row.mpp_from, row.problem) == (0.25, "given", "")


def test_several_processes_read_what_one_reads(archive, out, tmp_path):
    for i in range(9):
        os.link(archive / "1_HE.tif", archive / f"copy{i}_HE.tif")
    one = build([Folder(archive)], out, QUICK).manifest.rows
    two = build([Folder(archive)], tmp_path / "two.parquet", Options(processes=2)).manifest.rows
    assert one == two


def test_the_cache_forgets_what_is_out_of_date(tmp_path, archive, out):
    build([Folder(archive)], out, QUICK)
    with Cache(cache_of(out)) as cache:
        key = (f"folder:{archive}", "1_HE.tif")
        size = (archive / "1_HE.tif").stat()
        known = {"hashed": True, "look": False}
        assert cache.get(key, size.st_size, size.st_mtime_ns, **known)
        assert cache.get(key, size.st_size, 0, **known) is None
        assert cache.get(key, 0, size.st_mtime_ns, **known) is None
        assert cache.get(("x", "y"), size.st_size, size.st_mtime_ns, **known) is None


def test_of_slides_with_the_same_bytes_one_is_used(archive, out):
    copy = archive / "in" / "4_HE.tif"
    copy.write_bytes((archive / "1_HE.tif").read_bytes())
    rows = by_id(build([Folder(archive)], out, QUICK))
    assert rows["in/4_HE.tif"].problem == "the same file as 1_HE"
    assert rows["1_HE.tif"].problem == ""
    rows = by_id(build([], out, QUICK))
    assert rows["in/4_HE.tif"].problem == "the same file as 1_HE"
    (archive / "1_HE.tif").unlink()
    rows = by_id(build([Folder(archive)], out, QUICK))
    assert rows["in/4_HE.tif"].problem == ""


def test_the_csv_alone_is_a_manifest(archive, out):
    rows = build([Folder(archive)], out, QUICK).manifest.rows
    edit(out, "1_HE.tif", organ="lung")
    out.unlink()
    built = build([], out, QUICK)
    assert len(built.manifest.rows) == len(rows)
    assert by_id(built)["1_HE.tif"].organ == "lung"
    assert out.exists()


def test_both_files_edited_are_noticed_when_the_record_in_the_parquet_file_is_gone(archive, out):
    pandas = pytest.importorskip("pandas")
    build([Folder(archive)], out, QUICK)
    frame = pandas.read_parquet(out)
    frame.loc[0, "organ"] = "lung"
    frame.to_parquet(out)
    assert {r.organ for r in read_manifest(out).rows} == {"", "lung"}
    edit(out, "1_HE.tif", note="x")
    with pytest.raises(ConfigError, match="both edited"):
        read_manifest(out)


def test_what_a_table_or_an_option_stated_stays_without_them(archive, out, tmp_path):
    table = tmp_path / "about.csv"
    table.write_text("slide,stain_class,organ,split\n1_HE.tif,special,colon,test\n")
    (archive / "1_HE.tif").rename(archive / "TCGA-ZZ-0001_HE.tif")
    table.write_text(table.read_text().replace("1_HE", "TCGA-ZZ-0001_HE"))
    (archive / "2_CD3.tif").rename(archive / "17.tif")
    stated = Options(
        about=read_about(table), defaults=Defaults(stain_class="ihc", licence="P"), processes=1
    )
    first = by_id(build([Folder(archive)], out, stated))
    row = first["TCGA-ZZ-0001_HE.tif"]
    assert (row.stain_class, row.stain_from, row.split) == ("special", "table", "test")
    assert (first["17.tif"].stain_class, first["17.tif"].licence) == ("ihc", "P")
    again = build([Folder(archive)], out, QUICK)
    assert by_id(again) == first
    assert again.measured == 0
    table.write_text("slide,organ\nTCGA-ZZ-0001_HE.tif,lung\n")
    edit(out, "TCGA-ZZ-0001_HE.tif", stain="PAS")
    newer = Options(about=read_about(table), processes=1)
    row = by_id(build([Folder(archive)], out, newer))["TCGA-ZZ-0001_HE.tif"]
    assert (row.organ, row.stain, row.stain_class) == ("lung", "PAS", "special")
    assert row.edited == "organ@table split@table stain stain_class@table"

"""A table of slides and their feature files: what is found, and all that is wrong in one list."""

import h5py
import numpy as np
import pytest
import small_bags
from every_layout import LAYOUTS

from pathencoder.errors import ConfigError
from pathencoder.features.store import read_features
from pathencoder.heads.slide.bags import Bags, as_objects, read_bags
from pathencoder.heads.slide.record import UNKNOWN, FeatureRecord
from pathencoder.heads.slide.table import Columns, read_slides


def read(table, features, parts=("train",), bag="slide", *, skip_bad=False, **options):
    slides = read_slides(table, features, Columns())
    return read_bags(slides, parts, bag=bag, skip_bad=skip_bad, seed=0, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_slides_are_found_in_every_layout(tmp_path, layout):
    table, features = small_bags.folder(tmp_path, patients=2, layout=layout)
    found = read(table, features)
    assert found.data.labels == ("normal", "tumour")
    assert found.data.groups == ("P0", "P1")
    assert [x.shape for x in found.x] == [(small_bags.TILES, small_bags.DIM)] * 2
    np.testing.assert_allclose(found.x[1], small_bags.rows("tumour", 10), atol=4e-3)
    assert (found.record.name, found.record.sha256, found.record.mpp) == ("small", "12" * 32, 1.0)


def test_names_of_slides(tmp_path):
    for name in ("a", "b.1", "c"):
        small_bags.write(tmp_path / "f", name, small_bags.rows("normal", 0))
    small_bags.write(tmp_path / "f/deep", "d", small_bags.rows("normal", 0))
    table = small_bags.table(
        tmp_path,
        ["FILENAME;Target;PATIENT", "a.ome.tiff;x;1", "b.1;x;2", "c.h5;y;3", "deep/d.h5;y;4"],
    )
    assert read(table, tmp_path / "f").data.labels == ("x", "x", "y", "y")


def test_what_follows_a_dot_in_a_name_is_part_of_it(tmp_path):
    small_bags.write(tmp_path / "f", "S1", small_bags.rows("normal", 0))
    lines = ["slide,label", "S1.2,x", "S1.SVS,y"]
    with pytest.raises(ConfigError) as caught:
        read(small_bags.table(tmp_path, lines), tmp_path / "f")
    assert "1 problem" in str(caught.value)
    assert "line 2 (S1.2): no feature file of this name" in str(caught.value)


def test_rows_without_a_part_are_listed(tmp_path):
    small_bags.folder(tmp_path, patients=2)
    table = small_bags.table(tmp_path, ["slide,label,split", "S0_0,a,", "S1_0,b,test"])
    with pytest.raises(ConfigError, match=r"line 2 \(S0_0\): no part is named, others are of test"):
        read(table, tmp_path / "features")


def test_every_bad_row_is_listed(tmp_path):
    good = small_bags.rows("normal", 0)
    broken = good.copy()
    broken[3, 2] = np.nan
    features = tmp_path / "features"
    for name in ("ok", "ok2", "two"):
        small_bags.write(features, name, good)
    small_bags.write(features, "two", good, "anndata")
    small_bags.write(features, "nan", broken)
    small_bags.write(features, "empty", good[:0])
    small_bags.write(features, "other", good, recipe={"sha256": "34" * 32})
    small_bags.write(features, "scale", good, recipe={"target_mpp": 0.5})
    small_bags.write(features, "narrow", good[:, :5])
    (features / "damaged.h5").write_bytes(b"nothing")
    names = (
        "ok", "ok2", "ok2.svs", "gone", "two", "nan", "empty", "other", "scale", "narrow",
        "damaged", "",
    )  # fmt: skip
    table = small_bags.table(tmp_path, ["slide,label", *(f"{name},a" for name in names), "ok.svs,"])
    with pytest.raises(ConfigError) as caught:
        read(table, features)
    said = str(caught.value)
    for words in (
        "12 problems; nothing was fitted",
        "line 14 (ok.svs): the label is empty",
        "line 4 (ok2.svs): the slide is in the table twice",
        "line 5 (gone): no feature file of this name",
        "line 6 (two): several feature files, two.h5 and two.h5ad",
        "line 7 (nan): 1 of 24 rows hold NaN or infinity",
        "line 8 (empty): no tiles: no tissue was found",
        "line 9 (other): features of another kind: weights 3434",
        "line 10 (scale): features of another kind: scale 0.5 um/px, not 1 um/px",
        "line 11 (narrow): features of another kind: length of a row 5, not 6",
        "line 12 (damaged)",
        "line 13 (no slide): no slide is named",
    ):
        assert words in said, words
    assert "skip_bad" not in said
    table = small_bags.table(tmp_path, ["slide,label", *(f"{name},a" for name in names)])
    with pytest.raises(ConfigError, match="on_error='skip'"):
        read(table, features)
    found = read(table, features, skip_bad=True)
    assert len(found.x) == len(found.data) == 2
    assert "10 slides were left out, the first: slides.csv, line 4" in " ".join(found.data.notes)


def test_parts_that_are_not_asked_for_are_not_opened(tmp_path):
    small_bags.write(tmp_path / "f", "a", small_bags.rows("normal", 0))
    lines = ["slide,label,patient,split", "a,x,1,train", "gone,y,2,test"]
    assert len(read(small_bags.table(tmp_path, lines), tmp_path / "f").x) == 1
    with pytest.raises(ConfigError, match=r"line 3 \(gone\): no feature file"):
        read(small_bags.table(tmp_path, lines), tmp_path / "f", ("train", "test"))
    lines = [*lines, "a2,y,1,test"]  # a patient in two parts, also of one that is not opened
    with pytest.raises(ConfigError, match="group '1' is in train"):
        read(small_bags.table(tmp_path, lines), tmp_path / "f")


def test_the_slides_of_a_patient_are_one_bag(tmp_path):
    table, features = small_bags.folder(tmp_path, patients=2, each=3)
    found = read(table, features, bag="patient")
    assert (found.data.unit, found.data.groups) == ("patients", ("P0", "P1"))
    np.testing.assert_array_equal(
        found.x[1], np.concatenate([small_bags.rows("tumour", 10 + n) for n in range(3)])
    )
    lines = table.read_text().splitlines()
    small_bags.table(tmp_path, [*lines[:-1], lines[-1].replace("tumour", "normal")])
    with pytest.raises(ConfigError, match=r"patient 'P1' has several labels: tumour \(.*normal \("):
        read(table, features, bag="patient")
    table = small_bags.table(tmp_path, ["slide,label", "S0_0,a", "S1_0,b"])
    with pytest.raises(ConfigError, match="needs a column patient"):
        read(table, features, bag="patient")


def test_a_random_part_of_the_tiles_where_memory_is_short(tmp_path):
    table, features = small_bags.folder(tmp_path, patients=2)
    found = read(table, features, memory=2 * 10 * small_bags.DIM * 4)
    assert [len(x) for x in found.x] == [10, 10]
    assert "20 of 48 tiles were fitted on, at most 10 of a slide" in " ".join(found.data.notes)
    whole = {tuple(row) for row in small_bags.rows("tumour", 10)}
    assert len({tuple(row) for row in found.x[1]} & whole) == 10


def test_layouts_may_differ_and_rounding_is_noted(tmp_path):
    small_bags.write(tmp_path / "f", "a", small_bags.rows("normal", 0))
    small_bags.write(tmp_path / "f", "b", small_bags.rows("normal", 1), "stamp")
    table = small_bags.table(tmp_path, ["slide,label", "a,x", "b,y"])
    notes = " ".join(read(table, tmp_path / "f").data.notes)
    assert "several layouts: stamp, trident" in notes
    assert "the features of 1 slides are rounded to float16" in notes


def test_files_of_other_programs_state_less(tmp_path):
    (tmp_path / "f").mkdir()
    for name in ("a", "b"):
        with h5py.File(tmp_path / "f" / f"{name}.h5", "w") as file:
            file["features"] = np.ones((3, 4), np.float32)
            file["coords"] = np.zeros((3, 2), np.int64)
            file["features"].attrs["encoder"] = "uni_v1"
            file["coords"].attrs.update({"patch_size_level0": 512, "target_magnification": 20})
    record = FeatureRecord.of(read_features(tmp_path / "f/a.h5"))
    assert (record.name, record.mpp, record.is_known) == ("uni_v1", 0.5, False)
    table = small_bags.table(tmp_path, ["slide,label", "a,x", "b,y"])
    notes = " ".join(read(table, tmp_path / "f").data.notes)
    assert "do not state which weights made them (uni_v1)" in notes
    with h5py.File(tmp_path / "f/b.h5", "r+") as file:
        del file["features"].attrs["encoder"]
    with pytest.raises(ConfigError, match=f"encoder {UNKNOWN}, not uni_v1|encoder uni_v1, not"):
        read(table, tmp_path / "f")


def test_classes_weigh_the_same():
    bags = Bags(as_objects([np.ones((1, 2))] * 4), np.array([0, 0, 0, 1]), np.arange(4), 2, None, 0)
    np.testing.assert_allclose(bags.weights, [2 / 3, 2 / 3, 2 / 3, 2])
    assert len(bags.take(np.array([1, 3])).x) == 2


def test_tables_and_folders_that_are_not_there(tmp_path):
    table = small_bags.table(tmp_path, ["slide,label", "a,x"])
    with pytest.raises(ConfigError, match="name their folder"):
        read(table, None)
    with pytest.raises(ConfigError, match="no such folder"):
        read(table, tmp_path / "none")
    with pytest.raises(ConfigError, match="no such table"):
        read(tmp_path / "none.csv", tmp_path)
    with pytest.raises(ConfigError, match="no column 'slide' for the slide"):
        read(small_bags.table(tmp_path, ["name,label", "a,x"]), tmp_path)

"""Public sets of images with a class, on made-up copies of their layouts."""

import numpy as np
import pytest
import small_encoders
import small_sets

import pathencoder
from pathencoder.errors import ConfigError, ImageError
from pathencoder.heads.data.read import read_dataset
from pathencoder.heads.datasets.catalogue import public_set
from pathencoder.images import open_image

PATIENTS = {"14-22549", "14-9133", "14-13412", "14-2523", "14-13200", "14-10147"}


def opened(name, folder, **options):
    """The set; it passes the check of `fit`."""
    return read_dataset(pathencoder.open_dataset(name, folder, **options))


def parts(data):
    return {
        part: len(data.rows_of(part)) for part in sorted(map(data.part, range(len(data))), key=str)
    }


def test_pcam_reads_single_images_of_its_arrays(tmp_path):
    data = opened("pcam", small_sets.pcam(tmp_path))
    assert parts(data) == {"train": 8, "val": 8, "test": 8}
    assert data.classes == ("normal", "tumour")
    assert data.groups[:3] == ("camelyon16_train_000",) * 2 + ("camelyon16_train_001",)
    for row in (0, 1, 23):
        assert (open_image(data.images[row]).mean() < 120) == (data.labels[row] == "tumour")
    assert data.name(9) == "camelyonpatch_level_2_split_valid_x.h5 image 1"
    assert "train: 4 normal (131,072 published), 4 tumour" in data.notes[0]
    assert any("CC0 1.0; commercial use is allowed" in note for note in data.notes)


def test_pcam_without_tables_has_no_groups_and_one_part_is_enough(tmp_path):
    data = opened("pcam", small_sets.pcam(tmp_path, parts=("test",), meta=False))
    assert data.groups is None
    notes = " ".join(data.notes)
    assert "no slides are known" in notes
    assert "the part 'train' is not there (262,144 published)" in notes


def test_pcam_files_that_do_not_belong_together(tmp_path):
    small_sets.pcam(tmp_path)
    meta = tmp_path / "camelyonpatch_level_2_split_valid_meta.csv"
    meta.write_text("\n".join(meta.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ConfigError, match="has 7 rows for 8 images"):
        pathencoder.open_dataset("pcam", tmp_path)
    y = tmp_path / "camelyonpatch_level_2_split_train_y.h5"
    y.rename(tmp_path / "away.h5")
    (tmp_path / f"{y.name}.gz").write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"{y.name} \(unpack {y.name}\.gz\)"):
        pathencoder.open_dataset("pcam", tmp_path)
    y.write_bytes(b"no HDF5")
    with pytest.raises(ConfigError, match="cannot be read as HDF5"):
        pathencoder.open_dataset("pcam", tmp_path)


def test_an_array_that_is_replaced_later_names_the_image(tmp_path):
    data = opened("pcam", small_sets.pcam(tmp_path, parts=("train",)))
    file = tmp_path / "camelyonpatch_level_2_split_train_x.h5"
    file.unlink()
    file.write_bytes(b"another file")
    with pytest.raises(ImageError, match=r"train_x\.h5 image 3: cannot be read"):
        open_image(data.images[3])


@pytest.mark.full
def test_a_head_is_fitted_on_pcam_and_evaluated_on_its_test_part(tmp_path):
    data = pathencoder.open_dataset("pcam", small_sets.pcam(tmp_path))
    head = pathencoder.fit(
        "linear",
        small_encoders.shared("cnn"),
        data,
        evaluate="test",
        cache=False,
        progress=False,
        c=0.01,
    )
    assert head.report.groups == 4
    assert head.held_out.images == (4, 4)
    assert any("centre of 32 px" in note for note in head.report.notes)
    assert any("8 images of the part 'val' were not read" in note for note in head.report.notes)


def test_nct_crc_takes_the_100k_as_train_and_the_7k_as_test(tmp_path):
    small_sets.nct_crc(tmp_path)
    data = opened("nct-crc", tmp_path)
    assert parts(data) == {"train": 18, "test": 18}
    assert data.classes == small_sets.NCT
    assert data.groups is None
    with pytest.raises(ConfigError, match="NONORM/ADI"):
        pathencoder.open_dataset("nct-crc", tmp_path / "NCT-CRC-HE-100K")


def test_nct_crc_without_normalisation_is_another_folder(tmp_path):
    folders = ("NCT-CRC-HE-100K", "NCT-CRC-HE-100K-NONORM", "CRC-VAL-HE-7K")
    small_sets.nct_crc(tmp_path, folders=folders, each=1)
    data = opened("nct-crc", tmp_path, normalised="False")
    assert {image.parts[-3] for image in data.images} == {folders[1], folders[2]}
    assert "the parts differ in colour" in " ".join(data.notes)


def test_a_missing_class_and_a_foreign_folder(tmp_path):
    small_sets.nct_crc(tmp_path)
    (tmp_path / "CRC-VAL-HE-7K" / "Other").mkdir()
    assert "left out, no classes of the set: Other" in " ".join(opened("nct-crc", tmp_path).notes)
    (tmp_path / "CRC-VAL-HE-7K" / "TUM").rename(tmp_path / "TUM")
    with pytest.raises(
        ConfigError, match=r"is incomplete; 1 file or folder is missing:\n  CRC.*TUM"
    ):
        pathencoder.open_dataset("nct-crc", tmp_path)


def test_bach_is_found_below_the_given_folder(tmp_path):
    data = opened("bach", small_sets.bach(tmp_path))
    assert parts(data) == {"train": 8}
    assert data.classes == ("Benign", "InSitu", "Invasive", "Normal")
    assert any("no commercial use" in note for note in data.notes)


def test_breakhis_groups_by_patient_and_reads_one_magnification(tmp_path):
    data = opened("breakhis", small_sets.breakhis(tmp_path))
    assert len(data) == 16
    assert all("40X" in image.parts for image in data.images)
    assert set(data.groups) == PATIENTS
    assert data.classes == ("benign", "malignant")
    types = opened("breakhis", tmp_path, magnification="100", task="type")
    assert types.classes == ("A", "DC", "F", "LC", "MC", "TA")
    assert all("100X" in image.parts for image in types.images)
    with pytest.raises(ConfigError, match="no images of the magnification 400X"):
        pathencoder.open_dataset("breakhis", tmp_path, magnification=400)


def test_breakhis_has_the_divisions_of_its_authors(tmp_path):
    data = opened("breakhis", small_sets.breakhis(tmp_path), fold=1)
    assert parts(data) == {"train": 12, "test": 4}
    assert set(data.groups) == PATIENTS
    with pytest.raises(ConfigError, match=r"dsfold2\.txt"):
        pathencoder.open_dataset("breakhis", tmp_path, fold=2)


@pytest.mark.parametrize(
    ("test", "groups", "words"),
    [
        (("14-22549CD",), "slides", "14-22549CD"),
        (("SOB_M_LC",), "slides by type of tumour", "LC-14-13412"),
    ],
)
def test_breakhis_folds_that_divide_a_patient_say_so(tmp_path, test, groups, words):
    small_sets.breakhis(tmp_path)
    lines = (tmp_path / "dsfold1.txt").read_text().splitlines()
    changed = [
        f"{line.rpartition('|')[0]}|{'test' if any(t in line for t in test) else 'train'}"
        for line in lines
    ]
    (tmp_path / "dsfold1.txt").write_text("\n".join(changed))
    data = opened("breakhis", tmp_path, fold=1)
    assert f"in train and in test: groups are {groups}" in " ".join(data.notes)
    assert words in data.groups


def test_mhist_has_its_partition(tmp_path):
    data = opened("mhist", small_sets.mhist(tmp_path / "a" / "b"))
    assert parts(data) == {"train": 4, "test": 2}
    assert data.classes == ("HP", "SSA")
    small = pathencoder.open_dataset("mhist", tmp_path)  # two folders above
    assert small.labels == data.labels
    (tmp_path / "a/b/images/MHIST_aab.png").unlink()
    with pytest.raises(ConfigError, match=r"images/MHIST_aab\.png(.|\n)*annotations\.csv"):
        pathencoder.open_dataset("mhist", tmp_path)


def test_mhist_with_other_labels_or_columns(tmp_path):
    small_sets.mhist(tmp_path)
    file = tmp_path / "annotations.csv"
    file.write_text(file.read_text().replace("SSA,7", "SSL,7"))
    with pytest.raises(ConfigError, match=r"line 3: the label 'SSL' is neither HP nor SSA"):
        pathencoder.open_dataset("mhist", tmp_path)
    file.write_text("Image Name,Partition\n")
    with pytest.raises(ConfigError, match="lacks the column 'majority vote label'"):
        pathencoder.open_dataset("mhist", tmp_path)


def test_counts_that_agree_are_not_mentioned(tmp_path, monkeypatch):
    from pathencoder.heads.datasets import mhist

    found = {"train": {"HP": 2, "SSA": 2}, "test": {"HP": 1, "SSA": 1}}
    monkeypatch.setattr(mhist, "_PUBLISHED", found)
    notes = pathencoder.open_dataset("mhist", small_sets.mhist(tmp_path)).notes
    assert not any("published)" in note for note in notes)


def test_published_counts_add_up():
    from pathencoder.heads.datasets import breakhis, mhist, nct_crc, pcam

    def total(counts):
        return sum(sum(of.values()) for of in counts.values())

    assert total(pcam._PUBLISHED) == 327_680
    assert [sum(of.values()) for of in nct_crc._PUBLISHED.values()] == [100_000, 7_180]
    assert total(mhist._PUBLISHED) == 3_152
    assert sum(map(sum, breakhis._COUNTS.values())) == 7_909
    assert breakhis._published(40, "malignant") == {"benign": 625, "malignant": 1_370}
    assert np.isclose(public_set("PCAM ").mpp, 0.243 * 4)

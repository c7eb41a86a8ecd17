"""The lists of evaluation sets: every set is there, and they agree with the evaluation's own."""

import hashlib

import pytest
from paths import SHARED

from pathencoder.errors import ConfigError
from training.archive.exclude import FILES, read_lists
from training.archive.privacy import Pseudonyms
from training.evaluation import set_lists
from training.evaluation.known_sets import KNOWN
from training.evaluation.nuclei import SETS

pytestmark = pytest.mark.full
NUCLEI = SHARED / "data" / "nuclei"
HASHED = {  # of training/archive/benchmarks: files that no list of the evaluation has
    "cpm15": "cpm15/all/image01.webp",
    "dsb2018_histology": "dsb2018_histology/all/00ae65c1c663.webp",
    "lgg36": "lgg36/all/TCGA-DB-5270-R01-1.webp",
    "deepliif_test": "deepliif_sample/test/22_2.webp",
}


@pytest.fixture
def lists(tmp_path):
    return read_lists((), Pseudonyms(tmp_path / "key"))


def entries(name):
    return set_lists.read_list(FILES / f"{name}.csv.gz")


def test_every_evaluation_set_has_a_list(lists):
    named = {name for sets in (*lists.patients.values(), *lists.files.values()) for name in sets}
    assert {known.name for known in KNOWN} <= named
    for nuclei in SETS:
        assert any(name.startswith(nuclei.name.split("_")[0]) for name in named), nuclei.name


def test_held_out_files_are_found_by_their_hash_and_train_parts_are_not(lists):
    for known in KNOWN:
        for entry in entries(known.name):
            found = lists.sets_of("", entry.sha256 + "0" * 48)
            assert (known.name in found.split()) == (entry.split != "train"), entry
    assert lists.sets_of("", "") == ""
    assert lists.sets_of("", "0" * 64) == ""


@pytest.mark.parametrize(
    ("name", "listed"), [("monuseg", "monuseg_test"), ("brca_m2c", "brca_m2c_val")]
)
def test_listed_patients_are_those_of_the_held_out_parts(lists, name, listed):
    patients = {patient for patient, sets in lists.patients.items() if listed in sets}
    assert patients == {entry.group for entry in entries(name) if entry.split != "train"}


@pytest.mark.parametrize(("name", "file"), HASHED.items())
def test_files_of_sets_without_a_list_of_the_evaluation_are_found(lists, name, file):
    if not NUCLEI.is_dir():
        pytest.skip("the images are not here")
    digest = hashlib.sha256((NUCLEI / file).read_bytes()).hexdigest()
    assert lists.sets_of("", digest) == name


def test_a_digest_may_be_short_and_not_too_short(tmp_path):
    own = tmp_path / "ours.csv"
    codes = Pseudonyms(tmp_path / "key")
    own.write_text(f"sha256\n{'A' * 16}\n")
    assert read_lists((own,), codes).sets_of("", "a" * 16 + "b" * 48) == "ours"
    own.write_text(f"sha256\n{'a' * 15}\n")
    with pytest.raises(ConfigError, match="16 to 64 hexadecimal digits"):
        read_lists((own,), codes)

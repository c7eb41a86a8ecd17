"""Nothing that describes a person enters a manifest."""

import stat

import pytest

from pathencoder.errors import StoreError
from training.archive.privacy import (
    Pseudonyms,
    is_code,
    is_personal,
    looks_personal,
    tcga_patient,
)


def test_a_hospital_number_becomes_a_code_that_its_key_alone_gives(tmp_path):
    codes = Pseudonyms(tmp_path / "a.key")
    code = codes.code_of("MRN0098")
    assert is_code(code)
    assert "0098" not in code
    assert codes.code_of(" mrn0098 ") == code == Pseudonyms(tmp_path / "a.key").code_of("MRN0098")
    assert codes.code_of(code) == code
    assert codes.code_of("MRN0099") != code
    assert Pseudonyms(tmp_path / "b.key").code_of("MRN0098") != code


def test_the_key_is_for_its_owner_alone(tmp_path):
    codes = Pseudonyms(tmp_path / "a.key")
    assert codes.code_of("TCGA-AB-0001") == "TCGA-AB-0001"
    assert codes.code_of("BLGSP-71-1", published=True) == "published:BLGSP-71-1"
    assert codes.code_of("") == ""
    assert not (tmp_path / "a.key").exists()
    codes.code_of("1")
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_a_damaged_key_is_refused(tmp_path):
    (tmp_path / "a.key").write_text("short")
    with pytest.raises(StoreError, match="Restore it from a copy"):
        Pseudonyms(tmp_path / "a.key").code_of("1")


@pytest.mark.parametrize(
    "name",
    ["patient_name", "PatientName", "Patient Birth Date", "dob", "MRN", "Sex", "surname", "age"],
)
def test_columns_of_a_person_are_known(name):
    assert is_personal(name)


@pytest.mark.parametrize("name", ["slide", "stain", "organ", "patient", "scanner", "file_name"])
def test_other_columns_are_not(name):
    assert not is_personal(name)


def test_names_of_files_that_may_tell_who_it_is_are_noticed():
    assert looks_personal("Jansen_19530131_HE.svs")
    assert looks_personal("0012345678.svs")
    assert looks_personal("DOE^JANE.dcm")
    assert not looks_personal("case_17_HE.svs")


def test_a_tcga_patient_is_in_the_name():
    assert tcga_patient("x/TCGA-AB-0001-01Z-00-DX1.0123.svs") == "TCGA-AB-0001"
    assert tcga_patient("slide.svs") == ""

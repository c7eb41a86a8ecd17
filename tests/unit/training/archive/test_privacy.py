"""Nothing that describes a person enters a manifest."""

import stat
from dataclasses import replace

import pytest

from pathencoder.errors import ConfigError, StoreError
from training.archive.build import Options, build, record
from training.archive.item import Item
from training.archive.privacy import (
    Pseudonyms,
    is_code,
    is_personal,
    looks_personal,
    tcga_patient,
)
from training.archive.store import read_manifest, write_manifest


class Ward:
    """A source of two slides of a patient."""

    name, local = "ward:", False

    def items(self):
        for number in "12":
            yield Item(self.name, number, f"ward/{number}.svs", patient="MRN0098")


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


def test_where_codes_are_no_key_is_made_and_no_other_is_used(tmp_path):
    file, other = tmp_path / "a.key", tmp_path / "b.key"
    with pytest.raises(ConfigError, match=r"there is no key here.*--key"):
        Pseudonyms(file, in_use=True).code_of("1")
    assert not file.exists()
    made = Pseudonyms(file)
    assert made.fingerprint == ""
    code = made.code_of("1")
    assert made.fingerprint
    assert made.fingerprint not in file.read_text()
    same = Pseudonyms(file, in_use=True, fingerprint=made.fingerprint)
    assert same.code_of("1") == Pseudonyms(file, in_use=True).code_of("1") == code
    Pseudonyms(other).code_of("1")
    with pytest.raises(ConfigError, match=r"this is another key.*--key"):
        Pseudonyms(other, in_use=True, fingerprint=made.fingerprint).code_of("1")


@pytest.mark.full
def test_a_manifest_without_its_key_codes_no_number(tmp_path, monkeypatch):
    out, key, own = (tmp_path / name for name in ("m.parquet", "m.key", "ours.csv"))
    own.write_text("patient\nMRN0099\n")
    first = build([Ward()], out).manifest
    before = out.read_bytes()
    away = key.rename(tmp_path / "away")
    with monkeypatch.context() as patch:
        patch.setattr("training.archive.build._facts", lambda *_: pytest.fail("files were read"))
        with pytest.raises(ConfigError, match="there is no key here"):
            build([Ward()], out)
    assert not key.exists()
    key.write_text("a" * 64)
    with pytest.raises(ConfigError, match="this is another key"):
        build([Ward()], out)
    with pytest.raises(ConfigError, match="this is another key"):
        record(out, {("ward:", "1"): "c" * 64}, Options(exclude=(own,)))
    assert out.read_bytes() == before
    key.unlink()
    assert build([], out).manifest == first  # meets no number
    assert build([Ward()], out, Options(key=away)).manifest == first
    assert not key.exists()


@pytest.mark.full
def test_an_older_manifest_takes_the_key_that_is_there_and_records_it(tmp_path):
    out, key = tmp_path / "m.parquet", tmp_path / "m.key"
    first = build([Ward()], out).manifest
    write_manifest(out, replace(first, key=""))  # as versions that recorded none
    assert read_manifest(out).key == ""
    away = key.rename(tmp_path / "away")
    with pytest.raises(ConfigError, match="there is no key here"):
        build([Ward()], out)
    away.rename(key)
    assert build([Ward()], out).manifest == first == read_manifest(out)


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

"""Splits by a hash of the patient."""

import pytest

from pathencoder.errors import ConfigError
from training.archive.splits import SHARES, check_shares, parse_shares, split_by_hash


def test_shares_hold_over_many_patients_and_a_patient_keeps_its_split():
    splits = [split_by_hash(f"p{i}", SHARES) for i in range(4000)]
    assert abs(splits.count("train") / 4000 - 0.9) < 0.02
    assert abs(splits.count("test") / 4000 - 0.05) < 0.02
    assert splits == [split_by_hash(f"p{i}", SHARES) for i in range(4000)]
    assert split_by_hash("a patient", SHARES) == "train"  # a change would move every patient


def test_shares_are_read_and_checked():
    assert parse_shares("train=0.8, validation=0.2") == {"train": 0.8, "val": 0.2}
    for wrong in ("train=0.8", "train", "a=1", "train=x", "train=2,val=-1"):
        with pytest.raises(ConfigError):
            parse_shares(wrong)


def test_other_shares_than_before_are_refused():
    assert check_shares(None, {"train": 1.0}) == {"train": 1.0}
    assert check_shares(None, {}) == SHARES
    with pytest.raises(ConfigError, match="patients keep their split"):
        check_shares({"train": 1.0}, SHARES)

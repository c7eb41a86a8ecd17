"""The page of an evaluation."""

import dataclasses

import pytest
from small_reports import report

from training.evaluation.report_rows import Mean
from training.evaluation.whole.table import page

pytestmark = pytest.mark.full


def mean(*sets):
    return Mean(
        encoder="default", title="H&E sets", verb="probe", metric="auroc", value=0.5, sets=sets
    )


def test_a_mean_is_shown_where_it_is_of_several_sets():
    one = dataclasses.replace(report(), means=(mean("a"),))
    several = dataclasses.replace(report(), means=(mean("a", "b"),))
    assert "mean of 1" not in page(one)
    assert "mean of 2" in page(several)

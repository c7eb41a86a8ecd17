"""The page of an evaluation."""

import dataclasses
from types import SimpleNamespace

import pytest
from small_reports import report

from training.evaluation.report_rows import Mean
from training.evaluation.whole.run import means
from training.evaluation.whole.table import page

pytestmark = pytest.mark.full


def mean(*sets):
    return Mean(
        encoder="default", title="H&E sets", verb="probe", metric="auroc", value=0.5, sets=sets
    )


def test_a_mean_is_shown_where_it_is_of_several_sets():
    one = dataclasses.replace(report(), means=(mean("a"),))
    several = dataclasses.replace(report(), means=(mean("a", "b"),))
    assert "| mean of a |" not in page(one)
    assert "| mean of a, b |" in page(several)


def test_sets_of_dense_figures_alone_take_no_mean_away():
    def measured(name, probe, *, in_means=True):
        row = SimpleNamespace(name=name, stain="he")
        return SimpleNamespace(row=row, probe=probe, in_means=in_means)

    sets = [measured("a", "tiles"), measured("b", "tiles"), measured("c", None)]
    sets.append(measured("d", "tiles", in_means=False))

    def figure(row, name, value):
        return SimpleNamespace(encoder=row, verb="probe", metric="auroc", set=name, value=value)

    figures = [figure("x", "a", 0.7), figure("x", "b", 0.9), figure("x", "d", 0.1)]
    figures += [figure("y", "a", 0.5), figure("y", "b", None)]  # b could not be read for y
    rows = [SimpleNamespace(name="x"), SimpleNamespace(name="y")]
    (found,) = means(figures, rows, sets)
    assert (found.encoder, found.title, found.sets) == ("x", "H&E sets", ("a", "b"))
    assert found.value == pytest.approx(0.8)

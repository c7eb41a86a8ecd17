"""Epochs are chosen by folds together, and by the loss that temperature scaling leaves."""

import numpy as np
import pytest

from pathencoder.heads import stopping

pytestmark = pytest.mark.full


class Scripted:
    """A training whose scores of each epoch are given."""

    def __init__(self, *scores):
        self.scores, self.done = [np.asarray(s, float) for s in scores], 0

    def epoch(self):
        self.done += 1

    def held_out(self):
        return self.scores[min(self.done, len(self.scores)) - 1]


def margins(*values):
    """Scores of two classes whose difference is given."""
    return np.stack([np.zeros(len(values)), np.array(values, float)], 1)


def chosen(y, *runs, longest=10, fewest=1):
    found = [Scripted(*scores) for scores in runs]
    loss = stopping.class_loss([np.array(y)] * len(runs), [np.ones(len(y))] * len(runs))
    return stopping.best_epoch(found, loss, longest, fewest), [run.done for run in found]


def test_a_network_that_is_too_sure_but_orders_better_is_kept():
    timid, sure = margins(-0.1, 0.1, -0.1, 0.2, 0.1), margins(-40, -10, 30, 35, 32)
    epoch, _ = chosen([0, 0, 1, 1, 0], [timid, timid], longest=2)
    assert epoch == 1
    epoch, _ = chosen([0, 0, 1, 1, 0], [timid, sure], longest=2)
    assert epoch == 2


def test_one_fold_does_not_decide_alone():
    good, bad = margins(-1, -1, 1, 1), margins(1, -1, -1, 1)
    assert chosen([0, 0, 1, 1], [good, bad, bad], longest=3)[0] == 1
    together = ([good, bad, bad], [bad, bad, good], [bad, bad, good])
    assert chosen([0, 0, 1, 1], *together, longest=3)[0] == 3


def test_all_trainings_end_15_epochs_after_the_best():
    good, bad = margins(-1, -1, 1, 1), margins(1, -1, -1, 1)
    epoch, done = chosen([0, 0, 1, 1], [bad, good, bad], [bad, good, bad], longest=100)
    assert (epoch, done) == (2, [17, 17])


def test_the_first_epochs_do_not_count_where_more_are_asked_for():
    good, bad = margins(-1, -1, 1, 1), margins(1, -1, -1, 1)
    some = [good, bad, margins(-1, -1, 1, -1), bad]
    assert chosen([0, 0, 1, 1], some, longest=10, fewest=2)[0] == 3
    assert chosen([0, 0, 1, 1], some, longest=2, fewest=50)[0] == 2


@pytest.mark.parametrize(("groups", "folds"), [(20, 5), (250, 4), (400, 3), (1000, 1)])
def test_only_as_many_folds_as_hold_enough_groups(groups, folds):
    y = np.arange(groups) % 2
    assert len(stopping.folds_for(y, np.arange(groups), 0)) == folds
    twice = np.repeat(np.arange(groups), 2)  # images do not count, groups do
    if groups <= 400:
        assert len(stopping.folds_for(np.repeat(y, 2), twice, 0)) == folds

"""Evenly spaced rows of a table."""

import numpy as np
import pytest

from training.data.spaced import evenly_spaced

pytestmark = pytest.mark.full


@pytest.mark.parametrize(("count", "most"), [(780, 400), (799, 400), (401, 400), (1000, 3)])
def test_the_rows_go_from_the_first_to_the_last_in_even_steps(count, most):
    rows = evenly_spaced(count, most)
    assert (len(rows), rows[0], rows[-1]) == (most, 0, count - 1)
    assert set(np.diff(rows)) <= {(count - 1) // (most - 1), -(-(count - 1) // (most - 1))}


def test_a_table_that_is_short_enough_is_read_whole():
    assert evenly_spaced(5, 5).tolist() == evenly_spaced(5, 99).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced(0, 5).tolist() == []
    assert evenly_spaced(9, 1).tolist() == [0]

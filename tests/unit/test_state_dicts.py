"""Weights and a network are compared by keys and shapes, with counts and examples."""

import numpy as np

from pathencoder.state_dicts import Differences, shapes_of


def test_equal_keys_and_shapes_do_not_differ():
    state = {"a": np.zeros((2, 3)), "steps": 4}
    assert shapes_of(state) == {"a": (2, 3), "steps": ()}
    assert not Differences(shapes_of(state), shapes_of(state))


def test_each_kind_of_difference_is_counted_with_examples():
    found = {"a": (2,), "b": (3, 4), **{f"extra{i}": () for i in range(4)}}
    expected = {"a": (2,), "b": (3, 5), "c": (1,)}
    assert str(Differences(found, expected)) == (
        "1 key missing (c [1]); 4 keys not used by the network (extra0, extra1, extra2, ...);"
        " 1 key of another shape (b [3, 4] instead of [3, 5])"
    )

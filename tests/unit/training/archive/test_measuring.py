"""Slides that are read in several processes, one of which may crash."""

import pytest
from deadly_paths import DeadlyPath
from small_slides import section, write_tiff

from training.archive.measuring import Task, measure_all

pytestmark = pytest.mark.full


@pytest.mark.slow
def test_a_crash_costs_the_slide_at_which_it_happened(tmp_path):
    path = write_tiff(tmp_path / "a.tif", section(600, 500))
    places = [path] * 12
    places[5] = DeadlyPath(path)
    tasks = [
        Task(("s", str(i)), place, 1, 2, hashed=True, look=False) for i, place in enumerate(places)
    ]
    found = dict(pair for some in measure_all(tasks, 2) for pair in some)
    assert len(found) == 12
    assert found.pop(("s", "5")).problem.startswith("the reader crashed on it")
    assert all(facts.mpp == pytest.approx(0.5) for facts in found.values())

"""Slides as fields for the robustness table."""

import numpy as np
import pytest
from small_slides import section, write_tiff

from training.evaluation.robustness import fields_of

pytestmark = pytest.mark.full


def test_the_robustness_evaluation_cuts_a_slide_into_fields(tmp_path):
    pixels = section(256, 200, ((0, 0, 256, 200),))
    fields = fields_of(write_tiff(tmp_path / "scan.tiff", pixels, levels=(1, 2)))
    assert len(fields) == 16
    assert np.array_equal(
        np.vstack([np.hstack(fields[i : i + 4]) for i in range(0, 16, 4)]), pixels
    )

"""The assumed stain of an image, and what the regions of a slide share."""

import numpy as np
import pytest
from synthetic_nuclei import tissue

import pathencoder
from pathencoder import stain
from pathencoder.errors import ConfigError
from pathencoder.nuclei import prepare

pytestmark = pytest.mark.full


def test_regions_of_a_slide_share_stain_and_thresholds():
    brown, _, _ = tissue((300, 300), nuclei=90, stain="ihc", positive=0.5)
    blue, _, _ = tissue((300, 300), nuclei=90, stain="ihc", positive=0.0, seed=1)
    # alone it cannot tell
    assert pathencoder.segment_nuclei(blue, mpp=0.5).positive_fraction is None
    slide = prepare.calibrate_slide([brown, blue], mpp=0.5)
    found = pathencoder.segment_nuclei(blue, mpp=0.5, slide=slide)
    assert (found.stain.stain, found.positive_fraction) == ("ihc", 0)
    assert (
        len(pathencoder.segment_nuclei(np.full((300, 300, 3), 250, np.uint8), mpp=0.5, slide=slide))
        == 0
    )
    with pytest.raises(ConfigError, match="at least one field"):
        prepare.calibrate_slide([], mpp=0.5)


def test_an_assumed_stain_is_noted():
    blue, _, _ = tissue(stain="ihc", positive=0.0)
    found = pathencoder.segment_nuclei(blue, mpp=0.5)
    assert (found.stain.stain, found.stain.decided) == ("he", False)
    assert any("cannot tell" in n for n in found.notes)
    brown, _, _ = tissue(stain="ihc", positive=0.4)
    found = pathencoder.segment_nuclei(brown, mpp=0.5, stain="he")
    assert [n for n in found.notes if "stain" in n or "H&E" in n or "IHC" in n] == [
        "its colours look like IHC (99 % sure)"
    ]
    assert found.stain.text == "H&E (as given)"
    outside = pathencoder.segment_nuclei(np.full((300, 300, 3), 255, np.uint8), mpp=0.25)
    assert any("outside the slide" in n for n in outside.notes)


def test_few_positive_nuclei_are_found_with_an_ambiguous_stain():
    image, labels, _ = tissue(stain="ihc", positive=0.0)
    image, labels = np.tile(image, (3, 3, 1)), np.tile(labels, (3, 3))
    one = np.zeros(labels.shape, bool)
    one[:160, :200] = labels[:160, :200] == 1
    image[one] = 255 * 10 ** -np.multiply(0.8, stain.VECTORS["dab"])
    found = pathencoder.segment_nuclei(image, mpp=0.5)
    assert not found.stain.decided
    assert found.table.positive.sum() == 1
    assert any("taken as DAB and hematoxylin" in n for n in found.notes)

"""Scale of the crop as a dense task: the target is the crop's, and maps learn it."""

import numpy as np
import pytest
import torch
from small_methods import picture_tiles, rng, small_method

from training import augment
from training.augment import CropSettings
from training.methods import simclr
from training.methods.parts.crop_scale import log_scale

pytestmark = pytest.mark.full
CNN = "test_efficientnet"


def test_the_target_is_the_logarithm_of_the_share_of_the_tiles_side():
    whole, half = torch.eye(2, 3), 0.5 * torch.eye(2, 3)
    oblong = torch.tensor([[0.0, -0.5, 0.1], [1.0, 0, 0.2]])  # turned; half as wide as high
    assert log_scale(torch.stack([whole, half, oblong])).flatten().tolist() == [0, -1, -0.5]


def test_every_flip_and_turn_has_the_scale_that_was_drawn():
    crop = CropSettings(px=32, area=(0.25, 0.25), aspect=(1.0, 1.0))
    assert torch.allclose(log_scale(augment.crop_places(40, crop, rng(0))), torch.tensor(-1.0))


@pytest.mark.slow
def test_maps_learn_the_scale_of_crops():
    task = {"stages": ["blocks.1"], "weight": 10.0}
    crop = {"px": 48, "area": (0.05, 1)}
    method = small_method(simclr.Settings(crop=crop, hidden=16, out=8, crop_scale=task), CNN)
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 3e-3)
    tiles, shares = picture_tiles(24), []
    for step in range(70):
        loss, logs = method.loss(method.views(tiles), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.after_step(step)
        shares.append(float(logs["crop_scale"]))
    assert np.mean(shares[:10]) < 0.1
    assert np.mean(shares[-20:]) > 0.2

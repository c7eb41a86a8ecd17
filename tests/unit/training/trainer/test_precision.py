"""Training in bf16 by default: only where the hardware gains from it, for the network at hand."""

import pytest
import torch
from torch import nn

from training.trainer import parallel

pytestmark = pytest.mark.full


@pytest.mark.parametrize(
    ("device", "groups", "expected"),
    [("cpu", 1, True), ("cpu", 4, False), ("cuda", 1, True), ("cuda", 4, True)],
)
def test_grouped_convolutions_gain_on_gpus_only(monkeypatch, device, groups, expected):
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=groups))
    monkeypatch.setattr("pathencoder.runtime.gains_from_bf16", lambda device: True)
    assert parallel.gains_from_bf16(network, torch.device(device)) is expected
    monkeypatch.setattr("pathencoder.runtime.gains_from_bf16", lambda device: False)
    assert not parallel.gains_from_bf16(network, torch.device(device))

"""The digest of weights in memory follows every change, also where it is kept."""

import pytest
import torch
from torch import nn

from pathencoder import weights_digest
from pathencoder.state_dicts import digest_of
from pathencoder.weights_digest import digest_of_network


def one_value(weight):
    weight.data[3, 5, 0, 0] += 1e-3


def sign(weight):
    weight.data.neg_()


def exchanged_channels(weight):
    weight.data.copy_(weight.data[[1, 0, *range(2, len(weight))]].clone())


def exchanged_inputs(weight):
    weight.data.copy_(weight.data[:, [1, 0, *range(2, weight.shape[1])]].clone())


def in_the_last_run(weight):
    weight.data.view(-1)[-1] += 1e-3


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(weights_digest, "_SMALL", 0)  # as of a large network
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(24, 30, 3), nn.BatchNorm2d(30), nn.Conv2d(30, 7, 1))


@pytest.mark.parametrize(
    "change", [one_value, sign, exchanged_channels, exchanged_inputs, in_the_last_run]
)
def test_a_change_through_data_gives_another_digest(network, change):
    before = digest_of_network(network)
    change(network[0].weight)  # PyTorch counts none of these
    after = digest_of_network(network)
    assert after != before
    state = network.state_dict()
    assert after == digest_of({k: v for k, v in state.items() if "num_batches" not in k})


def test_the_digest_of_an_unchanged_network_is_kept(network, monkeypatch):
    before = digest_of_network(network)
    monkeypatch.setattr(weights_digest, "digest_of", lambda state: pytest.fail("computed again"))
    assert digest_of_network(network) == before
    network[1].num_batches_tracked += 1
    assert digest_of_network(network) == before


@pytest.mark.full
def test_adapters_that_are_switched_off_give_another_digest():
    from peft import LoraConfig, get_peft_model

    inner = nn.Sequential(nn.Linear(4, 3))
    model = get_peft_model(inner, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    for network in (model, inner):
        found = [digest_of_network(network)]
        with model.disable_adapter():
            found.append(digest_of_network(network))
        inner[0].set_scale("default", 3)
        found.append(digest_of_network(network))
        assert len(set(found)) == 3
        inner[0].set_scale("default", 1)
        assert digest_of_network(network) == found[0]

"""The paper's network, sampling, loss and stopping rule."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import values, write_tiles

from pathencoder.errors import ConfigError
from pathencoder.nuclei.network import ConfidenceNetwork, Featuriser, NucleiNetwork, parameters
from training import config
from training.methods.parts import patch_contrast as pc
from training.pretrain import train

pytestmark = pytest.mark.full
NAMES = ("mse", "cross_entropy", "divergence", "mutual_information", "cosine")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_number_of_parameters_is_the_papers():
    assert parameters(ConfidenceNetwork()) == 7372
    assert parameters(ConfidenceNetwork(1)) == 7345
    assert parameters(Featuriser()) == 3386
    assert parameters(ConfidenceNetwork(), Featuriser()) == 10_758


def test_the_nuclei_network_has_fewer_parameters_and_takes_odd_sizes():
    network = NucleiNetwork().eval()
    assert parameters(network) == 10_218
    for size in ((32, 32), (33, 47)):
        assert network(torch.zeros(2, 3, *size)).shape == (2, 2, *size)


def test_confidence_is_a_map_of_the_same_size_in_0_to_1():
    out = ConfidenceNetwork().eval()(torch.rand(1, 3, 61, 70))
    assert out.shape == (1, 4, 61, 70)
    assert 0 <= out.min() <= out.max() <= 1


def slow_loss(patches, similarity, images, anchors, seed):
    """The formula, pair by pair."""
    draw, total = generator(seed), 0.0

    def one(a, b):
        return similarity(a[None], b[None]).item()

    for c, own in enumerate(patches):
        chosen = torch.randint(len(own.positive), (anchors,), generator=draw)
        others = [p for i, x in enumerate(patches) if i != c for p in x.positive]
        for p in own.positive[chosen]:
            for negatives in (own.negative, others):
                floor = np.log(sum(np.exp(one(p, n)) for n in negatives))
                total += sum(-one(p, q) + floor for q in own.positive)
    return total / (100 * images)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_the_formula(name):
    torch.manual_seed(0)
    similarity = pc.similarity_named(name, Featuriser().eval())
    patches = [pc.Patches(torch.rand(3, 3, 50, 50), torch.rand(2, 3, 50, 50)) for _ in range(2)]
    sampling = pc.Sampling(anchors=2)
    with torch.no_grad():
        found = pc.contrast_loss(patches, similarity, 5, sampling, generator(1))
        assert found.item() == pytest.approx(slow_loss(patches, similarity, 5, 2, 1), rel=1e-3)


@pytest.mark.parametrize("name", NAMES[:4])
def test_a_patch_is_most_like_itself(name):
    torch.manual_seed(0)
    patches = torch.rand(4, 3, 50, 50) * torch.rand(4, 1, 50, 50)
    alike = pc.similarity_named(name, Featuriser())(patches, patches)
    if name in ("mse", "divergence"):
        torch.testing.assert_close(alike.diagonal(), torch.zeros(4), atol=1e-4, rtol=0)
    assert (alike.argmax(0) == torch.arange(4)).all() or name == "cross_entropy"
    assert (alike.argmax(1) == torch.arange(4)).all() or name != "mse"


def test_unknown_similarity_is_named():
    with pytest.raises(ConfigError, match="mse, cross_entropy"):
        pc.similarity_named("l1", Featuriser())


def test_batch_without_a_polarity_has_no_loss():
    patches = [pc.Patches(torch.rand(3, 3, 50, 50), torch.rand(0, 3, 50, 50))]
    assert pc.contrast_loss(patches, pc.squared_error, 1, pc.Sampling(), generator()) is None
    assert pc.separation(patches, pc.squared_error) is None


def test_sampling_follows_entropy_and_confidence():
    confidence = torch.full((1, 1, 100, 100), 0.5)  # undecided
    confidence[..., :50, :50] = 0.999  # decided and positive
    images = torch.rand(1, 3, 100, 100)
    (found,) = pc.sample(images, confidence, pc.Sampling(stride=50, per_image=400), generator())
    assert len(found.positive) > 0.9 * 400
    expected = (0.95 * images + 0.05)[..., :50, :50] * 0.999
    same = (found.positive - expected).abs().amax((1, 2, 3)) < 1e-6
    assert same.float().mean() > 0.9


def test_sampling_gives_gradients_to_confidence_alone():
    confidence = torch.full((1, 1, 60, 60), 0.5, requires_grad=True)
    (found,) = pc.sample(torch.rand(1, 3, 60, 60), confidence, pc.Sampling(), generator())
    (found.positive.sum() + found.negative.sum()).backward()
    assert confidence.grad.abs().sum() > 0
    with pytest.raises(ConfigError, match="do not fit"):
        pc.sample(torch.rand(1, 3, 40, 40), torch.rand(1, 1, 40, 40), pc.Sampling(), generator())


def test_separation_of_like_positives_is_small():
    positive = torch.full((4, 3, 50, 50), 0.8) + torch.rand(4, 3, 50, 50) * 0.05
    found = pc.separation([pc.Patches(positive, torch.rand(4, 3, 50, 50) * 0.1)], pc.squared_error)
    assert found.ratio < 0.02
    mixed = torch.rand(8, 3, 50, 50)
    assert pc.separation(
        [pc.Patches(mixed[:4], mixed[4:])], pc.squared_error
    ).ratio == pytest.approx(1, abs=0.05)


def test_convergence_needs_separation_and_no_more_progress():
    rule = pc.Convergence(patience=5, smoothing=0.0)
    falling = [rule.update(pc.Separation(0.9**i, 1.0)) for i in range(30)]
    assert not any(falling)  # still falling
    assert [rule.update(pc.Separation(0.04, 1.0)) for _ in range(12)][-1]
    never = pc.Convergence(patience=5, smoothing=0.0)
    # constant, but not separated
    assert not any(never.update(pc.Separation(0.9, 1.0)) for _ in range(30))


def test_the_stopping_rule_goes_on_from_a_checkpoint():
    values = [pc.Separation(0.4 * 0.8**i + 0.1, 1.0) for i in range(150)]
    whole = pc.Convergence(patience=5)
    expected = [whole.update(value) for value in values]
    assert 10 < expected.index(True) < 149
    for stop in (1, 3, 10):
        first = pc.Convergence(patience=5)
        begun = [first.update(value) for value in values[:stop]]
        resumed = pc.Convergence(patience=5)
        resumed.load_state_dict(first.state_dict())
        assert begun + [resumed.update(value) for value in values[stop:]] == expected


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 3), st.booleans())
def test_channel_is_chosen_by_the_stain(channel, inverted):
    rng = np.random.default_rng(0)
    stain = rng.random((2, 30, 30)).astype(np.float32)
    maps = rng.random((2, 4, 30, 30)).astype(np.float32)
    maps[:, channel] = (1 - stain if inverted else stain) + 0.1 * maps[:, channel]
    maps[:, (channel + 1) % 4] = 1  # a dead channel
    assert pc.choose_channel(maps, stain) == (channel, inverted)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("images"), slides=3, each=2, side=128)


@pytest.mark.parametrize(
    ("similarity", "precision"), [("mse", "fp32"), ("mse", "bf16"), ("cosine", "fp32")]
)
def test_a_stopped_run_resumes_where_it_stopped(images, tmp_path, similarity, precision):
    asked = values(images, tmp_path / "whole")
    asked["method"] = {"name": "patch_contrast", "crop": 100, "similarity": similarity}
    asked["data"]["canvas"] = 128
    asked["optim"] |= {"steps": 2, "precision": precision}
    whole = train(config.check(asked))
    asked["run"] |= {"out": str(tmp_path / "pieces"), "minutes": 1e-9}
    for _ in range(2):
        pieces = train(config.check(asked))
    a, b = ((run / "export/model.safetensors").read_bytes() for run in (whole, pieces))
    assert a == b

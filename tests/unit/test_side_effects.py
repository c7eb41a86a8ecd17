"""Calls that read an encoder change neither it nor the process, in train and eval mode."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_encoders import SIZE, encoder, picture
from torch import nn

from pathencoder import pictures
from pathencoder.encoder import Encoder, load_encoder
from pathencoder.pretrained import folder as folders
from pathencoder.stream import Settings
from pathencoder.verify import verify


class Hub:
    """Takes every upload, and keeps nothing."""

    def __init__(self, **_):
        pass

    def create_repo(self, repo_id, **_):
        return SimpleNamespace(repo_id=repo_id)

    def list_repo_files(self, *_, **__):
        return []

    def create_commit(self, *_, **__):
        return "address"


X = torch.zeros(2, 3, SIZE, SIZE)
READS = {
    "encode": lambda e, _: e.encode([picture()] * 3, progress=False),
    "encode in bf16": lambda e, _: e.encode(picture(), precision="bf16", progress=False),
    "stream": lambda e, _: list(e.stream([picture()] * 2)),
    "results": lambda e, _: list(e.results([picture(), None])),
    "runner": lambda e, _: e.runner(Settings())(np.stack([picture()] * 2)),
    "pyramid": lambda e, _: e.pyramid(X),
    "transform": lambda e, _: e.transform(picture()),
    "as_module": lambda e, _: e.as_module(output="multi"),
    "precision_used": lambda e, _: e.precision_used(),
    "runtime_used": lambda e, _: e.runtime_used(Settings()),
    "save_pretrained": lambda e, folder: e.save_pretrained(folder / "saved"),
    "push_to_hub": lambda e, _: e.push_to_hub("me/mine"),
    "from_pretrained": lambda e, _: Encoder.from_pretrained(e.folder),
    "verify": lambda e, _: verify(e),
    "repr": lambda e, _: repr(e),
    "describe": lambda e, _: (e.device, e.dtype, e.folder, e.dim, e.num_features),
    "a picture": lambda e, _: pictures.dense_map(e, picture()),
}
# Attributes that are read above under another name, and forward, which trains in train mode like
# every module.
READ = {"device", "dtype", "folder", "dim", "num_features", "forward"}


def test_every_public_name_of_an_encoder_is_read_here():
    public = {n for n in set(dir(Encoder)) - set(dir(nn.Module)) if not n.startswith("_")}
    assert public <= {*READS, *READ}


@pytest.fixture(scope="module", params=["cnn", "vit"])
def source(request, tmp_path_factory):
    """The folder of an encoder with drop path, and BatchNorm statistics or none."""
    args = {"drop_path_rate": 0.5, **({"img_size": SIZE} if request.param == "vit" else {})}
    made, tile = encoder(request.param, model_args=args), picture(3)
    folder = tmp_path_factory.mktemp("source") / request.param
    folders.write_folder(
        folder,
        made.spec,
        made.network.state_dict(),
        reference_tile=tile,
        reference_embedding=made.encode(tile)[0],
    )
    return folder


@pytest.fixture
def loaded(source):
    return load_encoder(source, device="cpu")


def shape_of(enc):
    """All of an encoder that a read must not change, and of the process."""
    return {
        "state": {k: v.clone() for k, v in enc.state_dict().items()},
        "modes": [m.training for m in enc.modules()],
        "gradients": [(p.requires_grad, p.grad, p.dtype, p.stride()) for p in enc.parameters()],
        "identities": [id(p) for p in enc.parameters()],
        "spec": enc.spec,
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in enc.modules()],
        "torch's random numbers": torch.get_rng_state(),
        "numpy's": [str(part) for part in np.random.get_state()],
        "python's": random.getstate(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
    }


def equal(a, b):
    return a.equal(b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_a_read_changes_nothing(loaded, read, mode, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    loaded.train(mode != "eval")
    if mode == "mixed":
        for module in list(loaded.modules())[::2]:
            module.training = False
        next(loaded.parameters()).requires_grad_(False)
    before = shape_of(loaded)
    READS[read](loaded, tmp_path)
    after = shape_of(loaded)
    assert all(torch.equal(v, before["state"][k]) for k, v in after.pop("state").items())
    assert [what for what in after if not equal(after[what], before[what])] == []


@pytest.mark.parametrize("autocast", [False, True])
def test_an_encoder_that_was_read_can_still_be_trained(loaded, autocast):
    """Tensors that were computed without gradients are not reused by training."""
    loaded.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loaded.encode(picture(), precision="bf16", progress=False)
        verify(loaded)
        loaded(X).embedding.float().sum().backward()
    assert next(loaded.parameters()).grad is not None


def test_the_pyramid_has_gradients_in_both_modes(loaded):
    for mode in (True, False):
        loaded.train(mode).zero_grad()
        sum(m.sum() for m in loaded.pyramid(X)[0]).backward()
        assert next(loaded.parameters()).grad is not None

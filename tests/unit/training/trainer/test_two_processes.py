"""Two processes give the results of one process with the joint batch, also with sharded weights."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from pathencoder import compat
from pathencoder.spec import EncoderSpec
from training import distributed, methods
from training.data.loader import TileBatch
from training.methods import Plan
from training.methods.parts import regularisers, targets
from training.monitor.collapse import FirstFeatures
from training.trainer import parallel

pytestmark = pytest.mark.full
JOINT = 12
CPU = torch.device("cpu")
SMALL = {"hidden": 24, "colour": {"blur": 0.5, "grey": 0.5}}
CROPS = {"crop": {"px": 32}, "local_crops": {"count": 2, "px": 16}}
DINO = {
    **SMALL,
    "global_crops": {"px": 32, "field": (0.5, 0.9)},
    "local_crops": {"count": 2, "px": 16},
    "bottleneck": 8,
    "prototypes": 32,
}
DENSE = {
    "stain_maps": {"stages": ["blocks.0", "blocks.1"]},
    "nuclei_maps": {"stages": ["blocks.1"]},
    "crop_scale": {"stages": ["blocks.1"]},
    "dense_contrast": {"stages": ["blocks.0", "blocks.1"]},
    "context": {"stages": ["blocks.1"]},
}
SETTINGS = {
    "simclr": {"name": "simclr", **SMALL, **CROPS, "out": 8},
    "simclr_dense": {
        "name": "simclr",
        **SMALL,
        **CROPS,
        "out": 8,
        **DENSE,
    },
    "byol": {"name": "byol", **SMALL, **CROPS, "out": 8},
    "byol_dense": {"name": "byol", **SMALL, **CROPS, "out": 8, **DENSE},
    "distill": {
        "name": "distill",
        "teachers": ["pathencoder-tiny"],
        "crop": {"px": 32},
        "colour": SMALL["colour"],
    },
    "dino": {"name": "dino", **DINO, "spread": {"name": "koleo", "weight": 0.1}},
    "dino_dense": {"name": "dino", **DINO, **DENSE},
    "dino_sinkhorn": {
        "name": "dino",
        **DINO,
        "head_norm": True,
        "balance": "sinkhorn",
        "spread": {"name": "kde"},
    },
    "dino_patches": {"name": "dino", **DINO, "patches": {"shape": "block"}},
    "dino_patches_shared": {
        "name": "dino",
        **DINO,
        "balance": "sinkhorn",
        "patches": {"shape": "random", "own_head": False},
    },
}


def backbone(architecture):
    torch.manual_seed(0)
    timm = compat.import_timm()
    if "vit" in architecture:
        return timm.create_model(
            architecture, num_classes=0, img_size=32, patch_size=8, dynamic_img_size=True, depth=2
        )
    if architecture == "timm_cnn":
        return timm.create_model("test_efficientnet", num_classes=0)
    layers = (
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3),
        nn.BatchNorm2d(12, momentum=None),
        nn.ReLU(),
    )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def width(architecture):
    return {"vit": 64, "vit_registers": 64, "timm_cnn": 256, "plain": 12}[architecture]


def build(name, architecture):
    known = {"vit": "test_vit", "vit_registers": "test_vit"}
    make = known.get(architecture, architecture)
    torch.manual_seed(0)
    wide = width(architecture)
    half = (0.5,) * 3
    read = "cls" if "vit" in make else "pool"
    spec = EncoderSpec(
        name="small",
        architecture=make,
        dim=wide,
        width=wide,
        embedding=read,
        input_size=32,
        mean=half,
        std=half,
    )
    plan = Plan(
        lambda: backbone(make), wide, 100, JOINT, 4000, half, half, torch.Generator(), lambda: spec
    )
    settings = methods.module_of(SETTINGS[name]["name"]).Settings(**SETTINGS[name])
    return methods.build(settings, plan).train()


def tiles():
    g = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (JOINT, 3, 6, 6), dtype=torch.uint8, generator=g).float()
    smooth = nn.functional.interpolate(noise, size=(48, 48), mode="bilinear").byte()
    return smooth, torch.arange(JOINT) % 6


def one_step(name, architecture, strategy="ddp", steps=1):
    """Results of a few steps on this process's share of the joint batch, as NumPy arrays."""
    torch.set_num_threads(1)
    method = build(name, architecture)
    step = parallel.wrap(method, CPU, strategy=strategy)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    batch = TileBatch(*(distributed.share(t) for t in (*tiles(), torch.arange(JOINT))))
    for number in range(steps):
        optimizer.zero_grad()
        method.plan.generator.manual_seed(number)
        views = method.views(batch)
        loss, logs = step(views, 50 + number)
        loss.backward()
        gradients = {k: whole(p.grad) for k, p in method.named_parameters() if p.requires_grad}
        optimizer.step()
        method.after_step(50 + number)
    loss_of_all = distributed.mean(loss)
    state = parallel.full_state(method) if strategy == "fsdp" else method.state_dict()
    state = {k: v.numpy() for k, v in state.items()}
    return {
        "views": [v.numpy() for v in views],
        "loss": float(loss_of_all),
        "gradients": gradients,
        "state": state,
        "logs": logs,
    }


def whole(x):
    return (x.full_tensor() if hasattr(x, "full_tensor") else x).numpy().copy()


def collectives(rows):
    """The results of the collectives for this process's share of the rows, and their gradients."""
    mine = distributed.share(torch.from_numpy(rows)).requires_grad_()
    together = distributed.gather(mine)
    (together.square().sum() * (1 + distributed.rank())).backward()
    through_gather = mine.grad.clone()
    mine.grad = None
    (distributed.total(mine.sum(0)).square().sum() * (1 + distributed.rank())).backward()
    x = mine.detach()
    centring = targets.Centring(x.shape[1], 0.9).train()
    return {
        "gathered": together.detach().numpy(),
        "gather_gradient": through_gather.numpy(),
        "total_gradient": mine.grad.numpy(),
        "mean": distributed.mean(x).numpy(),
        "largest": float(distributed.largest(x)),
        "sinkhorn": targets.sinkhorn(x, temperature=0.5, iterations=3).numpy(),
        "centring": centring(x, 0.5).numpy(),
        "center": centring.center.numpy(),
        "koleo": float(regularisers.spread(regularisers.SpreadSettings(name="koleo"), (x,))),
        "kde": float(regularisers.spread(regularisers.SpreadSettings(name="kde"), (x,))),
    }


def spread_of_features(rows):
    """The signs of collapse over the first views of this process's share of the rows."""
    network = nn.Identity()
    features = FirstFeatures(network)
    features.want(wanted=True)
    mine = distributed.share(torch.from_numpy(rows))
    network(torch.cat([mine, mine + 9]))  # two views
    return features.spread(len(mine))


def average_of_sharded_weights():
    """Move a sharded network and a buffer of it by 1; returns how far their average moved."""
    method = build("simclr", "vit")
    networks = (method.backbone, method.average.module)
    for network in networks:
        network.register_buffer("statistic", torch.ones(2))  # as of a compiled ViT's DropPath
    parallel.wrap(method, CPU, strategy="fsdp")
    method.after_step(0)
    with torch.no_grad():
        method.backbone.statistic.add_(1)
        for p in method.backbone.parameters():
            p.add_(1)
    before = [whole(p) for p in method.average.module.parameters()]
    method.after_step(1)
    after = [whole(p) for p in method.average.module.parameters()]
    moved = {str(i): a - b for i, (a, b) in enumerate(zip(after, before, strict=True))}
    share = 1 - method.settings.average
    return {"share": share, "moved": moved, "statistic": whole(networks[1].statistic) - 1}


def _join(rank, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Call a function in two processes of one gloo group; returns their two results."""
    store = (tmp_path_factory.mktemp("group") / "store").as_uri()
    spawn = multiprocessing.get_context("spawn")
    pools = [
        ProcessPoolExecutor(1, mp_context=spawn, initializer=_join, initargs=(rank, store))
        for rank in range(2)
    ]

    def call(function, *arguments):
        futures = [pool.submit(function, *arguments) for pool in pools]
        return [f.result(timeout=600) for f in futures]

    yield call
    for pool in pools:
        pool.shutdown()


def apart(a, b):
    """|a - b| / |b|, vectors being all arrays of a dict together."""
    keys = sorted(b)
    assert sorted(a) == keys
    difference = np.sqrt(sum(float(np.square(a[k].astype(np.float64) - b[k]).sum()) for k in keys))
    return difference / np.sqrt(sum(float(np.square(b[k].astype(np.float64)).sum()) for k in keys))


def floats(state):
    return {k: v for k, v in state.items() if v.dtype.kind == "f"}


CASES = [
    *((name, "plain") for name in ("simclr", "byol", "dino", "dino_sinkhorn")),
    ("simclr", "timm_cnn"),
    *((name, "timm_cnn") for name in ("simclr_dense", "byol_dense", "dino_dense")),
    ("distill", "timm_cnn"),
    ("dino_patches", "vit"),
    ("dino_patches_shared", "vit"),
]


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_two_processes_give_the_result_of_the_joint_batch(both, name, architecture):
    joint = one_step(name, architecture)
    for rank, part in enumerate(both(one_step, name, architecture)):
        masks = [view for view in part["views"] if view.dtype == bool]
        for view, whole_view in zip(part["views"], joint["views"], strict=True):
            if view.ndim == 1:  # the positions that this process's masks hide
                assert np.array_equal(view, np.flatnonzero(np.concatenate(masks)))
            else:
                assert np.array_equal(view, whole_view[rank::2])
        assert part["loss"] == pytest.approx(joint["loss"], rel=1e-5)
        assert apart(part["gradients"], joint["gradients"]) < 1e-5
        assert apart(floats(part["state"]), floats(joint["state"])) < 1e-5
        statistics = {
            k: v for k, v in floats(joint["state"]).items() if "running" in k or "center" in k
        }
        if statistics:
            assert apart({k: part["state"][k] for k in statistics}, statistics) < 1e-5


@pytest.mark.parametrize("name", ["simclr", "byol", "distill", "dino_patches", "dino_sinkhorn"])
def test_sharded_weights_are_trained_as_unsharded_ones(both, name):
    steps = 1 if name == "distill" else 3  # so large a rate is too much for its targets
    joint = one_step(name, "vit", steps=steps)
    first, second = both(one_step, name, "vit", "fsdp", steps)
    for part in (first, second):
        assert part["loss"] == pytest.approx(joint["loss"], rel=1e-4)
        assert apart(part["gradients"], joint["gradients"]) < 1e-3
    assert apart(floats(first["state"]), floats(joint["state"])) < 1e-3
    assert second["state"] == {}


def test_an_average_follows_sharded_weights_and_whole_buffers(both):
    for part in both(average_of_sharded_weights):
        for moved in (*part["moved"].values(), part["statistic"]):
            assert np.allclose(moved, part["share"], atol=1e-6)


def test_collectives_targets_and_regularisers_use_the_joint_batch(both):
    rows = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    joint = collectives(rows)
    order = np.concatenate([np.arange(0, 10, 2), np.arange(1, 10, 2)])
    for rank, part in enumerate(both(collectives, rows)):
        assert np.array_equal(part["gathered"], rows[order])
        # the processes' losses weigh 1 and 2
        assert np.allclose(part["gather_gradient"], 3 * 2 * rows[rank::2])
        assert np.allclose(part["total_gradient"], 3 * 2 * rows.sum(0), atol=1e-5)
        assert np.allclose(part["mean"], (rows[::2] + rows[1::2]) / 2, atol=1e-6)
        for each_tile in ("sinkhorn", "centring"):
            assert np.allclose(part[each_tile], joint[each_tile][rank::2], atol=1e-6)
        for same in ("largest", "koleo", "kde", "center"):
            assert part[same] == pytest.approx(joint[same], rel=1e-5)


def test_signs_of_collapse_are_those_of_the_joint_batch(both):
    rows = np.random.default_rng(0).normal(size=(14, 24)).astype(np.float32)
    joint = spread_of_features(rows)
    first, second = both(spread_of_features, rows)
    assert first == {name: pytest.approx(value, rel=1e-4) for name, value in joint.items()}
    # half of the rows have at most seven directions
    assert first["rankme"] > 8
    assert second == {}
    rows[1, 0] = np.nan  # in the second process
    assert both(spread_of_features, rows) == [{}, {}]


def test_without_a_process_group_collectives_are_identities():
    rows = torch.randn(3, 2)
    assert distributed.world() == 1
    assert distributed.gather(rows) is rows
    assert distributed.total(rows) is rows
    assert distributed.share(rows) is rows
    with distributed.processes():  # nothing in the environment asks for one
        assert not dist.is_initialized()


def test_errors_of_a_lost_process_are_known():
    gloo = RuntimeError(
        "[/a/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:16058. This is"
        " typically caused by a remote worker crashing."
    )
    assert distributed.lost_process(gloo) == "Connection closed by peer [127.0.0.1]:16058"
    assert distributed.lost_process(dist.DistBackendError("NCCL error: timeout\nC++ frames"))
    assert distributed.lost_process(RuntimeError("shapes cannot be multiplied")) == ""
    assert distributed.lost_process(ValueError("gloo timed out")) == ""

"""What folded BatchNorms save in `fit` and `adapt`: `python -m tests.benchmarks.fit_step`.

Whole steps on made-up images, with the network as it is and with `folding.for_training`, in turn;
medians of CPU seconds and of the ratio inside a round. "read" is a prediction of a dense head.
Freed memory is kept, as the commands do it (pathencoder/allocator.py), unless --returned is given.
The last line is JSON. Run it on one core: `taskset -c 0`.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from unittest import mock

import click
import numpy as np
import torch

from pathencoder import allocator
from pathencoder.encoder import load_encoder
from pathencoder.heads.adapt import learner
from pathencoder.heads.adapt.options import HOWS, Options
from pathencoder.heads.dense import network, train
from pathencoder.heads.dense.tasks import POINTS
from pathencoder.heads.dense.weights import own_copy
from pathencoder.heads.linear import Linear
from pathencoder.heads.rows import Scaling
from pathencoder.wrapped import bare


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--returned", is_flag=True, help="Freed memory is returned: glibc's default.")
def main(rounds, returned):
    """Print a table of seconds."""
    if not returned:
        allocator.keep_freed_memory()
    torch.set_num_threads(1)
    encoder, found = load_encoder(device="cpu"), {}
    for name, make in (*adaptations(encoder), *dense(encoder)):
        steps = make(), make()
        seconds = ([], [])
        for number in range(rounds + 1):
            for which in (0, 1):
                with contextlib.nullcontext() if which else as_it_is():
                    started = time.process_time()
                    steps[which]()
                if number:  # the first one makes the copy
                    seconds[which].append(time.process_time() - started)
        ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
        before, after = map(statistics.median, seconds)
        found[name] = {
            "plain": round(before, 3),
            "folded": round(after, 3),
            "ratio": round(ratio, 2),
        }
        print(f"{name:14s} {before:6.3f} s  folded {after:6.3f} s  ratio {ratio:.2f}", flush=True)
    print(json.dumps(found))


def as_it_is():
    """The network itself in place of the copy."""
    stack = contextlib.ExitStack()
    for module in (learner, network):
        stack.enter_context(mock.patch.object(module, "for_training", lambda net, *_: bare(net)))
    stack.enter_context(mock.patch.object(network, "for_inference", lambda net, *_: bare(net)))
    return stack


def adaptations(encoder):
    """Steps of 32 tiles of 224 px."""
    width, random = encoder.dim, np.random.default_rng(0)
    head = Linear(
        Scaling(np.zeros(width), np.ones(width)), random.normal(0, 0.01, (width, 2)), np.zeros(2)
    )
    tiles, labels = torch.rand(32, 3, 224, 224), torch.arange(32) % 2

    def make(how, bf16):
        own = learner.Learner(encoder, head, Options(how))
        own._bf16 = bf16
        return lambda: own.step(own.loss(tiles, labels, torch.ones(32)), 0.1)

    for how in HOWS:
        for bf16 in (False, True):
            yield f"{how} {'bf16' if bf16 else 'fp32'}", lambda how=how, bf16=bf16: make(how, bf16)


def dense(encoder):
    """Steps of a head of points, with the encoder: 8 windows of 256 px; then a prediction."""
    image = torch.rand(4, 600, 600) * 255
    image[3] = (image[3] > 254).float()

    def make(precision):
        made = network.DenseNetwork(own_copy(encoder), POINTS.outputs, stride=POINTS.stride)
        settings = train.Training(precision=precision)
        return train._Run(made, [image], POINTS.loss, settings).step

    def reader():
        made = network.DenseNetwork(own_copy(encoder), POINTS.outputs, stride=POINTS.stride)
        return lambda: made.read(image[:3])

    for precision in ("fp32", "bf16"):
        yield f"points {precision}", lambda precision=precision: make(precision)
    yield "points read", reader


if __name__ == "__main__":
    main()

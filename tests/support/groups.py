"""Groups of processes on this machine, in the environment that torchrun gives."""

import multiprocessing
import os
import socket
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from training.pretrain import main


class Group:
    """Processes that stay for several calls."""

    def __init__(self, pools):
        self.pools = pools

    def call(self, function, *arguments, node=None):
        """Call a function in each process; returns their results.

        `node`: processes of a node; the default is all.
        """
        world, port = len(self.pools), free_port()
        asked = [
            pool.submit(_call, environment(rank, world, port, node), function, arguments)
            for rank, pool in enumerate(self.pools)
        ]
        return [a.result(timeout=600) for a in asked]

    def pretrain(self, recipe, settings, node=None):
        """The command; returns the exit statuses."""
        return self.call(main, [str(recipe), *settings], node=node)


@contextmanager
def group(size):
    """A group, which ends with the block."""
    pools = [ProcessPoolExecutor(1, mp_context=_context()) for _ in range(size)]
    try:
        yield Group(pools)
    finally:
        for pool in pools:
            pool.shutdown()


def spawned(function, *arguments):
    """A process of its own that calls a function."""
    process = _context().Process(target=function, args=arguments)
    process.start()
    return process


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preload"])  # once, not in each process
    return context


def environment(rank, world, port, node=None):
    """What torchrun sets for a process."""
    node = node or world
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % node),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _call(variables, function, arguments):
    torch.set_num_threads(1)
    os.environ |= variables
    return function(*arguments)

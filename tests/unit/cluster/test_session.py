"""Addresses, and the shares of a cluster; nothing here starts Ray."""

import sys

import pytest

from pathencoder.cluster.session import Node, Plan, Share, check_address, share_out
from pathencoder.errors import ConfigError, MissingExtra

FOUR = Node("a", 4, 0)


@pytest.mark.parametrize("address", ["", "locale", "ray://head:10001", "10.0.0.1", "a:b"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match="auto"):
        check_address(address)


@pytest.mark.parametrize("address", ["local", "auto", "10.0.0.1:6379", "head-1.lab:6379"])
def test_without_ray_the_message_names_the_extra(address, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pathencoder\[ray\]"):
        check_address(address)


@pytest.mark.parametrize(
    ("nodes", "jobs", "options", "plan"),
    [
        ([FOUR], 99, {"cores": 1}, Plan(4, 4, Share(1))),
        ([FOUR], 3, {"cores": 1}, Plan(3, 3, Share(1))),
        ([FOUR], 99, {"cores": 3}, Plan(1, 1, Share(3))),
        ([FOUR, Node("b", 2, 0)], 99, {"cores": 2}, Plan(3, 2, Share(2))),
        ([FOUR, Node("b", 1, 0)], 99, {"cores": 8}, Plan(1, 1, Share(4))),
        ([Node("head", 0, 0), FOUR], 99, {"cores": 4}, Plan(1, 1, Share(4))),
        ([FOUR, Node("g", 16, 2)], 99, {"cores": 4}, Plan(2, 2, Share(8, 1))),
        ([Node("g", 16, 2), Node("h", 8, 4)], 99, {"cores": 4}, Plan(6, 4, Share(2, 1))),
        ([Node("g", 16, 2)], 99, {"cores": 4, "gpus": False}, Plan(4, 4, Share(4))),
    ],
)
def test_one_worker_for_each_gpu_or_for_some_cores(nodes, jobs, options, plan):
    assert share_out(nodes, jobs=jobs, **options) == plan


@pytest.mark.parametrize(
    ("nodes", "gpus", "message"),
    [
        ([FOUR], True, "no machine of the Ray cluster has a GPU"),
        ([Node("head", 0, 0)], None, "no cores"),
        ([], None, "no machines"),
    ],
)
def test_a_cluster_that_cannot_work_is_refused(nodes, gpus, message):
    with pytest.raises(ConfigError, match=message):
        share_out(nodes, jobs=1, cores=4, gpus=gpus)

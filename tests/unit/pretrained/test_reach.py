"""Reachability of hosts: refusals and unknown names at once, slow hosts, proxies."""

import errno
import socket
import time

import pytest

from pathencoder.pretrained import reach


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(reach, "_known", {})
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return port


def test_a_host_that_answers(listening):
    assert reach.unreachable(f"http://127.0.0.1:{listening}/path") is None


def test_a_refusal(closed):
    assert "refused" in reach.unreachable(f"http://127.0.0.1:{closed}")


def test_a_name_that_is_not_known(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "name is not known" in reach.unreachable("https://example.org")


def test_a_failing_name_server_is_queried_twice(monkeypatch, listening):
    asked = []
    real = socket.getaddrinfo

    def at_second(*args, **kwargs):
        asked.append(args)
        if len(asked) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", at_second)
    assert reach.unreachable(f"http://127.0.0.1:{listening}") is None


def test_a_slow_network_is_waited_for_with_a_warning(monkeypatch, caplog, listening):
    real = socket.getaddrinfo
    monkeypatch.setattr(reach, "_WARN_AFTER", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: (time.sleep(0.3), real(*a, **k))[1])
    assert reach.unreachable(f"http://127.0.0.1:{listening}") is None
    assert "has not answered" in caplog.text


def test_a_host_that_never_answers_times_out(monkeypatch, closed):
    monkeypatch.setattr(reach, "_WARN_AFTER", 0.01)
    monkeypatch.setattr(reach, "_TIMEOUT", 0.05)
    monkeypatch.setattr(reach, "_look_up", lambda *_: time.sleep(1))
    assert reach.unreachable(f"http://127.0.0.1:{closed}") == "no answer in 0.05 s"


def test_one_address_that_works_is_enough(listening, closed):
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
        for port in (closed, listening)
    ]
    assert reach._connect(both) is None
    assert reach._connect(both[:1]) == reach.os.strerror(errno.ECONNREFUSED).lower()


def test_behind_a_proxy_the_proxy_is_checked(monkeypatch, listening, closed):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listening}")
    assert reach.unreachable("http://nowhere.invalid") is None
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert reach.unreachable(f"http://127.0.0.1:{closed}") is not None


def test_an_answer_is_cached(monkeypatch, closed):
    assert reach.unreachable(f"http://127.0.0.1:{closed}")
    monkeypatch.setattr(reach, "_look_up", lambda *_: pytest.fail("asked again"))
    assert reach.unreachable(f"http://127.0.0.1:{closed}")

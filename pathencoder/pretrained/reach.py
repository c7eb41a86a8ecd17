"""Does anything answer at an address? Asked before a download, whose client would try for half a minute."""

from __future__ import annotations

import errno
import logging
import os
import queue
import selectors
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

log = logging.getLogger(__name__)

_SAID_AFTER = 2.0  # seconds without an answer after which that is said
_LONGEST = 10.0  # seconds that a connection may take; a slow network needs some
_KEPT = {True: 60.0, False: 10.0}  # seconds for which an answer, or none, is remembered
_PORTS = {"https": 443, "http": 80}
_known: dict[tuple[str, int], tuple[float, str | None]] = {}


def unreachable(url: str) -> str | None:
    """Why no connection to the host of an address can be made; None where one can.

    A refusal or an unknown host is known at once; a host that is silent is waited for, up to 10 s,
    and that is said after 2 s. Behind a proxy it is the proxy that is asked.
    """
    host, port = _host(url)
    when, reason = _known.get((host, port), (-1e9, None))
    if time.monotonic() - when < _KEPT[reason is None]:
        return reason
    reason = _asked_aside(host, port)
    _known[host, port] = (time.monotonic(), reason)
    return reason


def _host(url: str) -> tuple[str, int]:
    """Host and port of the address, or of the proxy that leads to it."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)


def _asked_aside(host: str, port: int) -> str | None:
    """The answer of a thread, since nothing else bounds the time of a name's look-up."""
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(host, port)), daemon=True).start()
    for wait in (_SAID_AFTER, _LONGEST - _SAID_AFTER):
        try:
            return answers.get(timeout=wait)
        except queue.Empty:
            if wait == _SAID_AFTER:
                log.warning(
                    "%s has not answered for %g s: waiting up to %g s", host, wait, _LONGEST
                )
    return f"no answer in {_LONGEST:g} s"


def _ask(host: str, port: int) -> str | None:
    for last in (False, True):
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            if last or getattr(error, "errno", None) != socket.EAI_AGAIN:
                return f"its name is not known here ({error})"
            time.sleep(0.2)
        else:
            return _connect(addresses)
    return None


def _connect(addresses: Sequence[tuple[int, int, int, str, tuple[Any, ...]]]) -> str | None:
    """All addresses at once: one family may lead nowhere while the other works."""
    failed = errno.ETIMEDOUT
    with ExitStack() as opened, selectors.DefaultSelector() as waiting:
        for family, kind, protocol, _, address in addresses:
            one = opened.enter_context(socket.socket(family, kind, protocol))
            one.settimeout(0)
            code = one.connect_ex(address)
            if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                waiting.register(one, selectors.EVENT_WRITE)
            elif code == 0:
                return None
            else:
                failed = code
        until = time.monotonic() + _LONGEST
        while waiting.get_map() and (ready := waiting.select(until - time.monotonic())):
            for key, _ in ready:
                tried = key.fileobj
                assert isinstance(tried, socket.socket)
                code = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return None
                failed = code
                waiting.unregister(tried)
    return os.strerror(failed).lower()

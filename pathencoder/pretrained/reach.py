"""Check whether a host can be reached before a download, whose client retries for half a minute."""

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

_WARN_AFTER = 2.0  # seconds without an answer after which a warning is logged
_TIMEOUT = 10.0  # seconds that a connection may take
_CACHED = {True: 60.0, False: 10.0}  # seconds for which a success, or a failure, is cached
_PORTS = {"https": 443, "http": 80}
_known: dict[tuple[str, int], tuple[float, str | None]] = {}


def unreachable(url: str) -> str | None:
    """Why the host of an address, or its proxy, cannot be reached; None where it can.

    A refused connection or an unknown host is reported at once. The timeout for a host that does
    not answer is 10 s, with a warning after 2 s.

    Args:
        url: The address.

    Returns:
        The reason as text, or None.
    """
    host, port = _host(url)
    when, reason = _known.get((host, port), (-1e9, None))
    if time.monotonic() - when < _CACHED[reason is None]:
        return reason
    reason = _connect_in_thread(host, port)
    _known[host, port] = (time.monotonic(), reason)
    return reason


def _host(url: str) -> tuple[str, int]:
    """Host and port of the address, or of its proxy."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)


def _connect_in_thread(host: str, port: int) -> str | None:
    """Connect in a thread: a name lookup has no timeout."""
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_look_up(host, port)), daemon=True).start()
    for wait in (_WARN_AFTER, _TIMEOUT - _WARN_AFTER):
        try:
            return answers.get(timeout=wait)
        except queue.Empty:
            if wait == _WARN_AFTER:
                log.warning(
                    "%s has not answered for %g s: waiting up to %g s", host, wait, _TIMEOUT
                )
    return f"no answer in {_TIMEOUT:g} s"


def _look_up(host: str, port: int) -> str | None:
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
    """Try all addresses at once: IPv6 may fail silently while IPv4 works."""
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
        until = time.monotonic() + _TIMEOUT
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

"""Requests to the web services of archives: retries, Retry-After, redirects without the token.

No message and no log line holds a token or the query of a signed URL.
"""

from __future__ import annotations

import email.utils
import json
import logging
import random
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from pathencoder.errors import MissingExtra, SlideError
from pathencoder.redact import hide_secrets

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRIES = 9
_PAUSE = 0.5  # seconds before the second try, doubled for each that follows
_LONGEST = 300.0  # seconds of a pause; a longer Retry-After ends the tries
_CONNECT, _READ = 20.0, 120.0  # seconds


class SourceError(SlideError):
    """A source does not answer, refuses access, or holds another file than it listed."""


class Unanswered(SourceError):
    """A source does not answer, or breaks off each time: its other slides would fail, too."""


class Refused(SourceError):
    """Access is refused, or there is no such thing: another try does not help.

    Attributes:
        status: Of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Stopped(Exception):
    """The program asked for the end."""


@dataclass(frozen=True)
class Client:
    """A web service.

    Attributes:
        name: What messages call it.
        base: The URL that its paths are relative to; only its host ever gets the token.
        headers: Sent to its host alone: the token.
        advice: What to do where access is refused.
        stop: Set by another thread to end waiting.
        pause: Seconds before the second try.
    """

    name: str
    base: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    advice: str = "check the name, and whether this account may see it"
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    pause: float = _PAUSE

    def get(self, path: str, **query: str | int) -> Any:
        """The JSON answer of a GET.

        Args:
            path: Relative to the base, or a URL.
            query: Its parameters.

        Raises:
            SourceError: As `open`, or the answer is no JSON.
        """
        return self._json("GET", f"{path}?{urlencode(query)}" if query else path, None)

    def post(self, path: str, body: object) -> Any:
        """The JSON answer of a POST with a JSON body, which must not change anything.

        Raises:
            SourceError: As `open`, or the answer is no JSON.
        """
        return self._json("POST", path, json.dumps(body).encode())

    def open(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> BaseHTTPResponse:
        """An answer that is read as it comes: 2xx, 206, 3xx or 416. Close it after use.

        Args:
            url: Relative to the base, or a URL; one of another host gets no token.
            headers: Further ones, such as Range.
            method: GET or POST.
            body: Of a POST.

        Raises:
            Refused: 4xx but 429.
            Unanswered: No answer after several tries.
            Stopped: The program ended it.
        """
        whole = urljoin(self.base, url)
        sent = {"User-Agent": "pathencoder-archive", **(headers or {})}
        if _host(whole) == _host(self.base):
            sent |= self.headers
        problem = ""
        for attempt in range(_TRIES):
            if self.stop.is_set():
                raise Stopped
            answer, problem = self._once(method, whole, sent, body)
            if answer is not None and answer.status not in _RETRIED:
                return self._accepted(answer, whole)
            wait = self.pause * 2**attempt * (0.75 + random.random() / 2)
            if answer is not None:
                problem = f"it answers {answer.status}"
                asked = _retry_after(answer)
                answer.close()
                if asked > _LONGEST:
                    problem += f" and asks to wait {asked:.0f} s: run the command again later"
                    break
                wait = max(wait, asked)
            if attempt + 1 < _TRIES and self.stop.wait(min(wait, _LONGEST)):
                raise Stopped
        raise Unanswered(
            f"{self.name}: {hide_secrets(whole)}: {problem}. What was received is kept; the same"
            " command goes on from there"
        )

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[BaseHTTPResponse | None, str]:
        """An answer, or why there is none."""
        import urllib3

        pool = _pool(url)
        try:
            answer = pool.request(
                method,
                url,
                body=body,
                headers={**headers, **({"Content-Type": "application/json"} if body else {})},
                retries=False,
                redirect=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT, read=_READ),
            )
        except urllib3.exceptions.HTTPError as error:
            return None, f"the connection fails ({type(error).__name__})"
        return answer, ""

    def _accepted(self, answer: BaseHTTPResponse, url: str) -> BaseHTTPResponse:
        """The answer, unless it is a refusal."""
        if answer.status < 400 or answer.status == 416:
            return answer
        status = answer.status
        answer.close()
        what = "access is refused" if status in (401, 403) else "it is not there, or hidden"
        if status == 401 and self.headers:
            what = "the token is refused: it is wrong, or has expired"
        if status not in (401, 403, 404, 410):
            what = "the request is refused"
        message = f"{self.name}: {hide_secrets(url)}: {what} ({status}): {self.advice}"
        raise Refused(message, status)

    def _json(self, method: str, path: str, body: bytes | None) -> Any:
        import urllib3

        url = path
        for _ in range(_TRIES):
            answer = self.open(url, {"Accept": "application/json"}, method=method, body=body)
            try:
                if answer.status in _REDIRECTS:
                    url = urljoin(urljoin(self.base, url), answer.headers.get("Location", ""))
                    continue
                return json.loads(answer.read())
            except (ValueError, urllib3.exceptions.HTTPError):  # cut off
                if self.stop.wait(self.pause):
                    raise Stopped from None
            finally:
                answer.close()  # no effect on the connection of one that was read whole
        raise Unanswered(f"{self.name}: {hide_secrets(url)}: its answer is no JSON: is it the API?")


def location(answer: BaseHTTPResponse, url: str) -> str | None:
    """Where an answer redirects to; None where it does not."""
    if answer.status not in _REDIRECTS:
        return None
    return urljoin(url, answer.headers.get("Location", ""))


def _host(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _retry_after(answer: BaseHTTPResponse) -> float:
    """Seconds that an answer asks to wait; a date counts from the server's own clock."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(answer.headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


_pools: dict[str, PoolManager] = {}  # by proxy; "" without one
_making = threading.Lock()


def _pool(url: str) -> PoolManager:
    """The connections of this process, through the proxy that the environment names for a URL.

    Raises:
        MissingExtra: urllib3 is not installed.
    """
    try:
        import urllib3
    except ImportError as error:
        raise MissingExtra.of("archive", "A web service as a source") from error
    parts, proxies = urlsplit(url), urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if urllib.request.proxy_bypass(parts.hostname or ""):
        proxy = ""
    with _making:
        if proxy not in _pools:
            # its debug lines hold the queries of signed URLs
            logging.getLogger("urllib3").setLevel(logging.WARNING)
            sizes: dict[str, Any] = {"num_pools": 16, "maxsize": 16}
            _pools[proxy] = (
                urllib3.ProxyManager(proxy, **sizes) if proxy else urllib3.PoolManager(**sizes)
            )
        return _pools[proxy]

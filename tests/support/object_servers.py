"""Loopback servers of objects: S3 by moto, and a web server that breaks connections."""

import contextlib
import hashlib
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def s3_server():
    """An S3 server; its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def s3_bucket(address, name, monkeypatch):
    """A new bucket of an S3 server, which the environment names; its URL."""
    from pathencoder.remote.objects import store_of

    for key, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    store_of.cache_clear()
    request = urllib.request.Request(f"{address}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    yield f"s3://{name}"
    store_of.cache_clear()


class WebFiles:
    """What a web server holds, and how it fails.

    Attributes:
        files: Contents by path, without the first slash.
        break_after: The body of the next `breaks` answers ends after so many bytes.
        gives_ranges: Requests for a range are answered with that range.
        refuses: Every request is answered with 403.
        refuses_head: HEAD requests are, as those of a URL that is signed for GET.
        on_get: Called with the number of each GET request, before it is answered.
        ranges: The Range of each GET request that was answered.
    """

    def __init__(self, files):
        self.files = dict(files)
        self.breaks, self.break_after = 0, 0
        self.gives_ranges = True
        self.refuses = self.refuses_head = False
        self.on_get = lambda number: None
        self.ranges = []
        self.address = ""
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET with ETag, Range and If-Match, as object stores do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        held = self.server.held
        with held.lock:
            held.on_get(len(held.ranges))
            held.ranges.append(self.headers.get("Range"))
        self.answer(body=True)

    def answer(self, *, body):
        held = self.server.held
        if held.refuses or (held.refuses_head and not body):
            return self.head(403, {"Content-Length": "0"})
        data = held.files.get(self.path.lstrip("/"))
        if data is None:
            return self.head(404, {"Content-Length": "0"})
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        if self.headers.get("If-Match", etag) != etag:
            return self.head(412, {"Content-Length": "0"})
        part, status = data, 200
        headers = {"ETag": etag, "Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT"}
        if (wanted := self.headers.get("Range")) and held.gives_ranges:
            start, end = map(int, wanted.removeprefix("bytes=").split("-"))
            part, status = data[start : end + 1], 206
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self.head(status, headers | {"Content-Length": str(len(part))})
        if body:
            self.send(part)

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, part):
        held = self.server.held
        with held.lock:
            broken = held.breaks > 0
            held.breaks -= broken
        self.wfile.write(part[: held.break_after] if broken else part)
        self.close_connection = broken


@contextlib.contextmanager
def web_server(files):
    """A web server of these files, as WebFiles."""
    held = WebFiles(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.held = held
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    held.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield held
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""Loopback servers that answer as the services of archives do: the GDC and grand-challenge.org.

The shapes of the answers are those that were recorded of the services; all values are made up.
"""

import contextlib
import dataclasses
import hashlib
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclasses.dataclass
class Request:
    method: str
    path: str
    query: dict
    headers: dict
    body: bytes

    @property
    def start(self):
        """The first byte that is asked for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))


@dataclasses.dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict = dataclasses.field(default_factory=dict)
    cut: int | None = None  # the connection ends after so many bytes of the body


def as_json(value):
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def as_file(data, request, *, etag=True):
    """A file, or the rest of it, as storages answer."""
    headers = {"Content-Type": "application/octet-stream"}
    tag = f'"{hashlib.md5(data).hexdigest()}"'
    if etag:
        headers["ETag"] = tag
    start = request.start
    if request.headers.get("if-range", tag) != tag:
        start = 0
    if not start:
        return Answer(200, data, headers)
    if start >= len(data):
        return Answer(416, b"", headers)
    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return Answer(206, data[start:], headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.reply("GET")

    def do_POST(self):
        self.reply("POST")

    def reply(self, method):
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(method, parts.path, query, headers, body)
        service = self.server.service
        with service.lock:
            service.requests.append(request)
            answer = service.first.pop(0) if service.first else service.answer(request)
        self.send_response_only(answer.status)  # without a Date of its own
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
        self.close_connection = answer.cut is not None


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that are killed in mid-request are no fault of a service."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Service:
    """A service. `first` holds answers that are given before any other."""

    def __init__(self):
        self.requests, self.first = [], []
        self.lock = threading.Lock()
        self.address = ""

    def answer(self, request):
        raise NotImplementedError

    def paths(self):
        return [request.path for request in self.requests]


@contextlib.contextmanager
def serving(*services, tls=None):
    """Start services, each on a port of its own; `tls`: a PEM file with certificate and key."""
    with contextlib.ExitStack() as stack:
        for service in services:
            server = _Server(("127.0.0.1", 0), _Handler)
            if tls is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(tls)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            server.service = service
            scheme = "http" if tls is None else "https"
            service.address = f"{scheme}://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield services[0] if len(services) == 1 else services


class GdcService(Service):
    """The GDC with slides of one project.

    Attributes:
        files: file_id -> (name, patient, bytes).
        broken: The next answers of /data end after `cut` bytes.
    """

    def __init__(self, files):
        super().__init__()
        self.files = dict(files)
        self.served = {file_id: data for file_id, (_, _, data) in self.files.items()}
        self.broken, self.cut = 0, 0
        self.page = 1000

    def answer(self, request):
        if request.path == "/status":
            return as_json(
                {"data_release": "Data Release 45.0 - December 04, 2025", "status": "OK"}
            )
        if request.path == "/files":
            return self.listed(json.loads(request.body))
        file_id = request.path.removeprefix("/data/")
        if file_id not in self.served:
            return Answer(404, b'{"message": "file not found"}')
        answer = as_file(self.served[file_id], request, etag=False)
        if self.broken > 0:
            self.broken -= 1
            answer.cut = self.cut
        return answer

    def listed(self, body):
        wanted = {c["content"]["field"]: c["content"]["value"] for c in body["filters"]["content"]}
        assert wanted["access"] == ["open"]
        assert wanted["data_type"] == ["Slide Image"]
        every = sorted(self.files) if wanted["cases.project.project_id"] == ["TCGA-XX"] else []
        size = min(self.page, body["size"])
        hits = [self.hit(file_id) for file_id in every[body["from"] : body["from"] + size]]
        return as_json(
            {
                "data": {
                    "hits": hits,
                    "pagination": {
                        "count": len(hits),
                        "total": len(every),
                        "size": size,
                        "from": body["from"],
                        "page": 1,
                        "pages": 1,
                    },
                },
                "warnings": {},
            }
        )

    def hit(self, file_id):
        name, patient, data = self.files[file_id]
        return {
            "id": file_id,
            "file_id": file_id,
            "file_name": name,
            "file_size": len(data),
            "md5sum": hashlib.md5(data).hexdigest(),
            "access": "open",
            "state": "released",
            "cases": [
                {
                    "submitter_id": patient,
                    "primary_site": "Breast",
                    # not asked for; a client that hands on whole answers would leak it
                    "demographic": {"year_of_birth": 1931, "gender": "female"},
                }
            ],
        }


SECRETS = ("Van der Berg", "1953-01-31", "MRN0098", "SIGNED", "tok-1234")


class GrandChallengeService(Service):
    """An archive of one slide an item; `storage` holds the files.

    Attributes:
        images: pk -> bytes, or the names in the storage of a DICOM slide's files.
        refuses: Requests answer "not found", as for an account without access.
        page: The most that a list answers at a time; the service's own is 1,000.
    """

    def __init__(self, images, storage):
        super().__init__()
        self.images, self.storage = dict(images), storage
        self.refuses, self.page = False, 2
        self.signed = 0

    def answer(self, request):
        if request.path == "/api/v1/gcapi/":  # what gcapi asks first, without the token
            return as_json({"latest_version": "0.16.1", "lowest_supported_version": "0.13.0"})
        if request.headers.get("authorization") != "BEARER tok-1234":
            return Answer(401, b'{"detail": "Invalid token."}')
        if self.refuses:
            return Answer(404, b'{"detail": "Not found."}')
        path = request.path.removeprefix("/api/v1/")
        if path == "archives/":
            there = request.query.get("slug") == "ihc"
            archive = {"pk": "ab12", "slug": "ihc", "title": "IHC", "logo": "", "description": ""}
            archive |= {"api_url": f"{self.address}/api/v1/archives/ab12/", "url": self.address}
            return self.paged([archive] * there, request)
        if path == "archives/items/":
            assert request.query["archive"] == "ab12"
            return self.paged([self.item(pk) for pk in sorted(self.images)], request)
        if path.endswith("/dicom/instances/"):
            return as_json({"instances": self.instances(path.split("/")[2])})
        if path.startswith("cases/images/"):
            return as_json(self.image(path.split("/")[2]))
        return self.redirect(request.path.split("/")[3])

    def paged(self, every, request):
        start = int(request.query.get("offset", 0))
        results = every[start : start + min(self.page, int(request.query.get("limit", 100)))]
        return as_json({"count": len(every), "next": None, "previous": None, "results": results})

    def item(self, pk):
        socket = {
            "pk": 5,
            "title": "Generic WSI",
            "description": "",
            "slug": "generic-wsi",
            "kind": "Image",
            "super_kind": "Image",
            "relative_path": "images/wsi",
            "default_value": None,
            "overlay_segments": None,
            "look_up_table": None,
        }
        return {
            "pk": f"item-{pk}",
            "title": "case of Van der Berg",
            "archive": f"{self.address}/api/v1/archives/ab12/",
            "hanging_protocol": None,
            "optional_hanging_protocols": [],
            "view_content": {},
            "values": [
                {
                    "pk": 31,
                    "socket": socket,
                    "interface": socket,
                    "value": None,
                    "file": None,
                    "image": f"{self.address}/api/v1/cases/images/{pk}/",
                }
            ],
        }

    def image(self, pk):
        dicom = not isinstance(self.images[pk], bytes)
        file = {
            "pk": f"f-{pk}",
            "file": f"{self.address}/media/images/{pk}/S.tif",
            "image_type": "TIFF",
            "image": f"{self.address}/api/v1/cases/images/{pk}/",
        }
        unused = ("depth", "color_space", "modality", "eye_choice", "stereoscopic_choice")
        unused += ("field_of_view", "voxel_depth_mm", "window_center", "window_width", "segments")
        return {
            **dict.fromkeys(unused),
            "api_url": f"{self.address}/api/v1/cases/images/{pk}/",
            "shape": [81920, 98304, 3],
            "shape_without_color": [81920, 98304],
            "pk": pk,
            "name": f"{pk}_CD8_Van der Berg.tif",
            "files": [] if dicom else [file],
            "dicom_image_set": {"image_set_id": "0123"} if dicom else None,
            "width": 98304,
            "height": 81920,
            "voxel_width_mm": 0.00025,
            "voxel_height_mm": 0.00025,
            "patient_id": "MRN0098",
            "patient_name": "Van der Berg",
            "patient_birth_date": "1953-01-31",
            "patient_sex": "F",
            "patient_age": "071Y",
            "study_description": "Van der Berg, biopsy",
        }

    def instances(self, pk):
        found = []
        for name in sorted(self.images[pk]):
            self.signed += 1
            url = f"{self.storage.address}/bucket/{name}?X-Signature=SIGNED{self.signed}"
            request = {"method": "GET", "url": url, "headers": {"X-Signed": "SIGNED"}}
            found.append({"sop_instance_uid": name, "get_instance": request})
        return found

    def redirect(self, pk):
        self.signed += 1
        url = f"{self.storage.address}/bucket/{pk}.tif?X-Signature=SIGNED{self.signed}"
        return Answer(302, b"", {"Location": url})


class StorageService(Service):
    """Signed storage: a signature works once; a token is refused.

    Attributes:
        files: Name -> bytes.
        expired: So many signatures are refused as if they had expired.
        cut: Each body ends after so many bytes; None: whole.
    """

    def __init__(self, files):
        super().__init__()
        self.files, self.expired, self.cut = dict(files), 0, None
        self.used = set()

    def answer(self, request):
        signature = request.query.get("X-Signature", "")
        if "authorization" in request.headers:
            return Answer(400, b"<Error><Code>InvalidArgument</Code></Error>")
        if self.expired > 0 or signature in self.used or not signature:
            self.expired -= 1
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        self.used.add(signature)
        answer = as_file(self.files[request.path.removeprefix("/bucket/")], request)
        answer.cut = self.cut
        return answer

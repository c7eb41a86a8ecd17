"""Downloads that break off, objects that change, servers that refuse."""

import threading
import traceback

import numpy as np
import pytest
from object_servers import web_server

from pathencoder.errors import SlideError
from pathencoder.remote import download as module
from pathencoder.remote.download import Stopped, download
from pathencoder.remote.objects import head, store_of
from pathencoder.remote.signed import without_secrets

pytestmark = pytest.mark.full
BLOCK = 1 << 16
DATA = np.random.default_rng(0).bytes(10 * BLOCK + 77)


@pytest.fixture
def web():
    with web_server({"d/a.svs": DATA}) as server:
        yield server
    store_of.cache_clear()


def fetch(web, file, **options):
    url = f"{web.address}/d/a.svs"
    return download(url, head(url), file, pause=0.001, block=BLOCK, **options)


def test_an_object_arrives_whole(web, tmp_path):
    found = fetch(web, tmp_path / "a.svs")
    assert (tmp_path / "a.svs").read_bytes() == DATA
    assert (found.size, found.name) == (len(DATA), "a.svs")


def test_an_empty_object_is_an_empty_file(web, tmp_path):
    web.files["d/a.svs"] = b""
    fetch(web, tmp_path / "a.svs")
    assert (tmp_path / "a.svs").read_bytes() == b""


def test_a_connection_that_breaks_costs_the_rest_of_one_block(web, tmp_path):
    web.breaks, web.break_after = 5, 1000
    fetch(web, tmp_path / "a.svs")
    assert (tmp_path / "a.svs").read_bytes() == DATA
    asked = [tuple(map(int, r.removeprefix("bytes=").split("-"))) for r in web.ranges]
    assert len(asked) > 11  # some twice
    assert sum(end + 1 - start for start, end in asked) < len(DATA) + 6 * BLOCK


def test_a_server_without_ranges_sends_the_whole_file(web, tmp_path):
    web.gives_ranges = False
    fetch(web, tmp_path / "a.svs")
    assert (tmp_path / "a.svs").read_bytes() == DATA
    web.breaks, web.break_after = 99, 1000
    with pytest.raises(SlideError, match="broke off"):
        fetch(web, tmp_path / "a.svs")


def test_a_connection_that_always_breaks_is_an_error(web, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TRIES", 2)
    monkeypatch.setattr(module, "_TOGETHER", 1)

    def fail(*args, **more):
        raise OSError("connection reset")

    monkeypatch.setattr("obstore.get", fail)
    with pytest.raises(SlideError, match=r"broke off 2 times.*connection reset"):
        fetch(web, tmp_path / "a.svs")


def test_an_object_that_changes_is_fetched_again(web, tmp_path):
    newer = DATA[::-1]

    def change(number):
        if number == 6:
            web.files["d/a.svs"] = newer

    web.on_get = change
    found = fetch(web, tmp_path / "a.svs")
    assert (tmp_path / "a.svs").read_bytes() == newer
    assert found.etag == head(f"{web.address}/d/a.svs").etag


def test_an_object_that_grows_is_fetched_again(web, tmp_path):
    def change(number):
        if number == 3:
            web.files["d/a.svs"] = DATA + b"more"

    web.on_get = change
    assert fetch(web, tmp_path / "a.svs").size == len(DATA) + 4
    assert (tmp_path / "a.svs").read_bytes() == DATA + b"more"


def test_an_object_that_keeps_changing_is_refused(web, tmp_path):
    def change(number):
        web.files["d/a.svs"] = DATA + str(number).encode()

    web.on_get = change
    with pytest.raises(SlideError, match="changed during the download, twice"):
        fetch(web, tmp_path / "a.svs")


def test_an_object_that_is_removed_is_an_error(web, tmp_path):
    url = f"{web.address}/d/a.svs"
    listed = head(url)
    del web.files["d/a.svs"]
    with pytest.raises(SlideError, match="no such object"):
        download(url, listed, tmp_path / "a.svs", pause=0.001)
    assert head(url) is None


def test_bytes_that_differ_on_disk_are_an_error(web, tmp_path, monkeypatch):
    def damaged(stream, kind):
        return kind(stream.read() + b"x")

    monkeypatch.setattr("hashlib.file_digest", damaged)
    with pytest.raises(SlideError, match="differs from what was received"):
        fetch(web, tmp_path / "a.svs")


def test_a_download_can_be_stopped(web, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        fetch(web, tmp_path / "a.svs", stop=stop)


def test_a_signed_url_is_read_by_get_alone_and_never_named(web, tmp_path):
    signed = "X-Signature=a%2FSECRET&x=1"
    web.files, web.refuses_head = {f"d/a%20b.svs?{signed}": DATA}, True
    url = without_secrets(f"{web.address}/d/a%20b.svs?{signed}")
    found = download(url, head(url), tmp_path / "a.svs", pause=0.001, block=BLOCK)
    assert (tmp_path / "a.svs").read_bytes() == DATA
    assert (found.name, found.size) == ("a b.svs", len(DATA))
    web.gives_ranges = False
    assert head(url) == found
    web.refuses = True
    for action in (lambda: head(url), lambda: download(url, found, tmp_path / "b.svs")):
        with pytest.raises(SlideError, match="sign the URL again") as caught:
            action()
        shown = "".join(traceback.format_exception(caught.value))
        assert "SECRET" not in shown
    web.refuses, web.files = False, {}
    assert head(url) is None

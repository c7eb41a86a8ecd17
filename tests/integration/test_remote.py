"""`pathencoder encode` with slides of a loopback S3 and of a web server."""

import numpy as np
import obstore
import pytest
from dicom_headers import dicom
from object_servers import s3_bucket, s3_server, web_server
from small_slides import section, write_tiff

import pathencoder
from pathencoder.features.store import read_features
from pathencoder.remote.objects import store_of
from pathencoder.remote.slides import find_slides

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def address():
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(address, monkeypatch, request):
    """Writes objects: bucket({name: bytes}); its URL."""
    with s3_bucket(address, f"b{abs(hash(request.node.name))}", monkeypatch) as url:

        def put(objects):
            for key, data in objects.items():
                obstore.put(store_of(url), key, data)
            return url

        yield put


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.tif"
    return write_tiff(path, section(700, 500)).read_bytes()


def test_a_prefix_is_encoded_as_local_slides_are_and_done_once(bucket, scan, encode, tmp_path):
    url = bucket({"p/a b.tif": scan, "p/ü.svs": b"no slide", "p/note.txt": b"x"})
    scratch = tmp_path / "scratch"
    status, text, errors = encode(f"{url}/p/", "--scratch", scratch)
    assert status == 3
    assert f"{url}/p/a b.tif: done" in text
    assert f"{url}/p/ü.svs: failed" in text
    assert str(scratch) not in text + errors
    assert "1 file is no slide (.txt 1)" in text
    assert list(scratch.iterdir()) == []
    remote = read_features(tmp_path / "out" / "a b.h5")
    (tmp_path / "a b.tif").write_bytes(scan)
    encode(tmp_path / "a b.tif", "--as", "slides", out="local")
    local = read_features(tmp_path / "local" / "a b.h5")
    assert len(local.rows)
    assert np.array_equal(remote.rows, local.rows)
    assert np.array_equal(remote.coords, local.coords)
    assert remote.attributes["slide_path"] == f"{url}/p/a b.tif"
    assert remote.attributes["slide_hash"] == local.attributes["slide_hash"]
    assert remote.attributes["slide"] == "a b.tif"
    _, text, errors = encode(f"{url}/p/a b.tif", "--scratch", scratch)
    assert "done before" in text
    assert "downloading" not in errors


def test_a_slide_that_changed_since_is_refused(bucket, scan, encode):
    url = bucket({"a.tif": scan})
    assert encode(f"{url}/a.tif")[0] == 0
    obstore.put(store_of(url), "a.tif", scan + b"more")
    status, text, _ = encode(f"{url}/a.tif")
    assert status == 1
    assert "before that file changed" in text


def test_tissue_of_a_remote_slide_is_found_once(bucket, scan, encode, tmp_path):
    url = bucket({"a.tif": scan})
    assert encode(f"{url}/a.tif", "--only-tissue")[0] == 0
    made = (tmp_path / "out/coords/a.h5").read_bytes()
    status, text, errors = encode(f"{url}/a.tif", "--only-tissue")
    assert status == 0
    assert f"{url}/a.tif: done before" in text
    assert "downloading" not in errors
    status, _, errors = encode(f"{url}/a.tif", "--only-tissue", "--pictures")
    assert status == 0
    assert (tmp_path / "out/pictures/a.jpg").exists()
    assert (tmp_path / "out/coords/a.h5").read_bytes() == made
    obstore.put(store_of(url), "a.tif", scan + b"more")
    status, text, _ = encode(f"{url}/a.tif", "--only-tissue")
    assert status == 1
    assert "before that file changed" in text


def test_a_dry_run_downloads_nothing(bucket, scan, encode):
    status, text, _ = encode(f"{bucket({'a.tif': scan})}/a.tif", "--dry-run")
    assert status == 0
    assert "MB to download" in text


def test_what_is_not_there_is_one_failure_each(bucket, scan, encode):
    url = bucket({"a.tif": scan, "t.txt": b"x", "empty/t.txt": b"x"})
    names = ("a.tif", "none.svs", "t.txt", "empty/")
    status, text, _ = encode(*(f"{url}/{name}" for name in names))
    assert status == 3
    for words in ("no object has this name", "not a slide by its suffix", "no slides below"):
        assert words in text
    assert "4 inputs: 1 done, 3 failed" in text


def test_a_failure_is_known_by_its_url_from_any_folder(bucket, scan, encode, tmp_path, monkeypatch):
    url = bucket({"a.tif": b"no slide"})
    assert encode(f"{url}/a.tif")[0] == 1
    assert f"{url}/a.tif" in (tmp_path / "out" / "failures.csv").read_text()
    obstore.put(store_of(url), "a.tif", scan)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, text, _ = encode(f"{url}/a.tif", "--retry-failed")
    assert status == 0, text
    assert not (tmp_path / "out" / "failures.csv").exists()


def test_slides_of_several_files_are_one_slide_each(bucket):
    url = bucket(
        {
            "x/m.mrxs": b"1",
            "x/m/Index.dat": b"2",
            "x/m/Data0.dat": b"3",
            "one/a.dcm": dicom("1.1"),
            "one/b.dcm": dicom("1.1"),
            "one/label.dcm": dicom("1.1", kind="LABEL"),
            "two/a.dcm": dicom("2.1"),
            "two/b.dcm": dicom("2.2"),
            "two/c.dcm": dicom("2.2"),
            "v/c.vsi": b"1",
            "v/_c_/stack1/frame_t.ets": b"2",
        }
    )
    found = find_slides(f"{url}/")
    files = {s.url.removeprefix(f"{url}/"): [f.name for f in s.files] for s in found.slides}
    assert files == {
        "one": ["one/a.dcm", "one/b.dcm"],
        "two/a.dcm": ["two/a.dcm"],
        "two/b.dcm": ["two/b.dcm", "two/c.dcm"],
        "v/c.vsi": ["v/c.vsi", "v/_c_/stack1/frame_t.ets"],
        "x/m.mrxs": ["x/m.mrxs", "x/m/Data0.dat", "x/m/Index.dat"],
    }
    assert found.left_out == []
    assert [s.whole_folder for s in found.slides] == [True, False, False, False, False]
    named = find_slides(f"{url}/x/m.mrxs").slides[0]
    assert [f.name for f in named.files] == ["m.mrxs", "m/Data0.dat", "m/Index.dat"]
    named = find_slides(f"{url}/two/c.dcm").slides[0]
    assert [f.name for f in named.files] == ["c.dcm", "b.dcm"]


def test_a_signed_url_is_encoded_and_its_query_is_nowhere(scan, encode, tmp_path):
    with web_server({"d/my%20scan.tif?sig=SECRET%2F1": scan}) as web:
        web.refuses_head = True
        url = f"{web.address}/d/my%20scan.tif"
        status, text, errors = encode(f"{url}?sig=SECRET%2F1", f"{url[:-4]}2.tif?sig=SECRET")
        assert status == 3
        assert f"{url}: done" in text
        features = read_features(tmp_path / "out" / "my%20scan.h5")
        assert features.attributes["slide_path"] == url
        texts = [text, errors, str(features.attributes)]
        web.files = {"d/my%20scan.tif?sig=SECRET%2F2": scan}
        texts += encode(f"{url}?sig=SECRET%2F2")[1:]
        assert "done before" in texts[-2]
        texts += encode(f"{url}?sig=SECRET%2F3", f"{url}?sig=SECRET%2F4")[1:]
        assert "given twice" in texts[-1]
        web.refuses = True
        texts += encode(f"{url}?sig=SECRET%2F5", "--debug", out="other")[1:]
        assert "sign the URL again" in "".join(texts)
    assert "SECRET" not in "".join(texts)
    for file in (f for f in tmp_path.rglob("*") if f.is_file() and "encoder" not in str(f)):
        assert b"SECRET" not in file.read_bytes()
    store_of.cache_clear()


def test_python_encodes_a_slide_of_a_web_server_whose_connection_breaks(scan, folder):
    with web_server({"d/my%20scan.tif": scan}) as web:
        web.breaks, web.break_after = 2, 1000
        url = f"{web.address}/d/my%20scan.tif"
        features = pathencoder.encode_slide(url, encoder=folder)
    assert len(features.rows)
    assert features.attributes["slide_path"].endswith("/d/my%20scan.tif")
    store_of.cache_clear()

"""`pathencoder nuclei` with slides of a loopback S3 and of a web server."""

import json

import obstore
import pytest
from nuclei_case import files, names, nuclei, statuses
from object_servers import s3_bucket, s3_server, web_server
from small_slides import write_tiff
from synthetic_nuclei import tissue

from pathencoder.cli.main import run
from pathencoder.remote.objects import store_of

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def address():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.tif"
    return write_tiff(path, tissue((500, 600), nuclei=60, radius=7)[0], mpp=0.5).read_bytes()


@pytest.fixture
def bucket(address, monkeypatch, request):
    with s3_bucket(address, f"n{abs(hash(request.node.name))}", monkeypatch) as url:
        yield url


def test_remote_slides_give_what_local_ones_do_and_are_done_once(bucket, scan, tmp_path, capsys):
    for key, data in {"p/a b.tif": scan, "p/bad.svs": b"no slide", "p/n.txt": b"x"}.items():
        obstore.put(store_of(bucket), key, data)
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    command = [f"{bucket}/p/", "--out", out, "--scratch", scratch]
    status, report = nuclei(capsys, *command, mpp=None)
    assert status == 3
    assert [entry["input"] for entry in report["inputs"]] == [
        f"{bucket}/p/a b.tif",
        f"{bucket}/p/bad.svs",
    ]
    assert statuses(report) == ["done", "failed"]
    assert str(scratch) not in json.dumps(report)
    assert list(scratch.iterdir()) == []
    (tmp_path / "a b.tif").write_bytes(scan)
    local = [tmp_path / "a b.tif", "--as", "slides", "--out", tmp_path / "local"]
    other = nuclei(capsys, *local, mpp=None)[1]
    assert names(report) == names(other) == ["a b_x0_y0"]
    for end in ("csv", "labels.png"):
        assert files(out)[f"a b_x0_y0.{end}"] == files(tmp_path / "local")[f"a b_x0_y0.{end}"]
    run(["nuclei", f"{bucket}/p/a b.tif", "--out", str(out)])
    text = capsys.readouterr()
    assert "done before" in text.out
    assert "downloading" not in text.err
    (out / "a b_x0_y0.csv").unlink()
    assert statuses(nuclei(capsys, *command, mpp=None)[1]) == ["done", "failed"]
    obstore.put(store_of(bucket), "p/a b.tif", scan + b"more")
    assert statuses(nuclei(capsys, *command, mpp=None)[1]) == ["done", "failed"]


def test_other_settings_are_not_done_before(bucket, scan, tmp_path, capsys):
    obstore.put(store_of(bucket), "a.tif", scan)
    command = [f"{bucket}/a.tif", "--out", tmp_path / "out", "--region", 0, 0, 200, 200]
    for more, status in (([], "done"), ([], "before"), (["--stain", "he"], "done")):
        assert statuses(nuclei(capsys, *command, *more, mpp=None)[1]) == [status]


def test_a_dry_run_downloads_nothing(bucket, scan, tmp_path, capsys):
    obstore.put(store_of(bucket), "a.tif", scan)
    assert run(["nuclei", f"{bucket}/a.tif", "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "MB to download" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_network_is_adapted_to_a_remote_slide(bucket, scan, tmp_path, capsys, monkeypatch):
    from pathencoder.cli import nuclei_adapt
    from pathencoder.nuclei.weights import load_network

    trained = []
    monkeypatch.setattr(nuclei_adapt, "_train", lambda maps, *_: trained.append(maps) or network)
    network = load_network()
    obstore.put(store_of(bucket), "a.tif", scan)
    command = [f"{bucket}/a.tif", "--out", tmp_path / "out", "--adapt"]
    assert statuses(nuclei(capsys, *command, mpp=None)[1]) == ["done"]
    assert statuses(nuclei(capsys, *command, mpp=None)[1]) == ["before"]
    assert [len(maps) for maps in trained] == [1]


def test_a_signed_url_is_recorded_without_its_query(scan, tmp_path, capsys):
    with web_server({"d/a.tif?sig=SECRET": scan}) as web:
        web.refuses_head = True
        command = [f"{web.address}/d/a.tif?sig=SECRET", "--out", tmp_path / "out"]
        status, report = nuclei(capsys, *command, mpp=None)
    assert (status, statuses(report)) == (0, ["done"])
    assert "SECRET" not in json.dumps(report)
    assert not any(b"SECRET" in data for data in files(tmp_path / "out").values())
    store_of.cache_clear()

"""Sources of slides, against loopback servers that answer in the recorded shapes."""

import hashlib
import logging
import threading
from dataclasses import replace

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_servers import (
    SECRETS,
    Answer,
    GdcService,
    GrandChallengeService,
    StorageService,
    serving,
)
from object_servers import s3_bucket, s3_server

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.remote.objects import store_of
from training.archive.facts import sha256_of
from training.archive.http import Refused, SourceError, Unanswered
from training.archive.privacy import Pseudonyms
from training.archive.row import Row
from training.archive.rows import NO_DEFAULTS, merged
from training.archive.sources.gdc import Gdc
from training.archive.sources.grand_challenge import GrandChallenge
from training.archive.sources.idc import Idc
from training.archive.sources.objects import Objects
from training.archive.sources.open_source import open_source
from training.archive.transfer import Replaced

pytestmark = pytest.mark.full
RANDOM = np.random.default_rng(0)
A, B = RANDOM.bytes(200_000), RANDOM.bytes(150_000)
NAME = "TCGA-XX-000{}-01Z-00-DX1.0123ABCD.svs"


@pytest.fixture
def gdc():
    files = {
        "e580": (NAME.format(1), "TCGA-XX-0001", A),
        "f691": (NAME.format(2), "TCGA-XX-0002", B),
    }
    with serving(GdcService(files)) as service:
        service.source = Gdc("TCGA-XX", url=f"{service.address}/", pause=0.001)
        yield service


@pytest.fixture
def challenge(monkeypatch):
    monkeypatch.setenv("GRAND_CHALLENGE_AUTHORIZATION", "BEARER tok-1234")
    storage = StorageService({"77aa.tif": A, "88bb.tif": B, "99cc.tif": B})
    service = GrandChallengeService({"77aa": A, "88bb": B, "99cc": B}, storage)
    with serving(service, storage):
        service.source = GrandChallenge("ihc", f"{service.address}/api/v1", pause=0.001)
        yield service


def row_of(item, **values):
    """The row of an item as a manifest has it."""
    codes = Pseudonyms(None)
    patient = codes.code_of(item.patient, published=True)
    return replace(merged(None, item, None, patient, {}, NO_DEFAULTS), **values)


def fetch(source, row, place):
    return source.fetch(row, place, threading.Event())


def test_the_gdc_lists_slides_page_by_page_with_patient_md5_and_release(gdc):
    gdc.page = 1
    items = list(gdc.source.items())
    assert [i.source_id for i in items] == ["e580", "f691"]
    first = items[0]
    assert first.patient == "TCGA-XX-0001"
    assert first.checksum == f"md5:{hashlib.md5(A).hexdigest()}"
    assert (first.size, first.organ, first.stain_class) == (len(A), "breast", "he")
    assert first.release.startswith("Data Release 45.0")
    assert first.file == f"gdc/TCGA-XX/{NAME.format(1)}"
    assert "1931" not in str(vars(first))
    with pytest.raises(ConfigError, match="no open slide image"):
        list(Gdc("TCGA-NO", url=f"{gdc.address}/").items())


def test_a_slide_of_the_gdc_comes_in_spite_of_broken_connections(gdc, tmp_path):
    row = row_of(next(gdc.source.items()))
    gdc.broken, gdc.cut = 3, 30_000
    assert fetch(gdc.source, row, tmp_path / "a.svs") == hashlib.sha256(A).hexdigest()
    assert (tmp_path / "a.svs").read_bytes() == A
    data = [r for r in gdc.requests if r.path.startswith("/data/")]
    assert [r.start for r in data] == [0, 30_000, 60_000, 90_000]
    assert gdc.source.verify(row, tmp_path / "a.svs") == ""
    (tmp_path / "a.svs").write_bytes(A[:-1])
    assert "bytes instead of" in gdc.source.verify(row, tmp_path / "a.svs")


def test_the_gdc_is_asked_again_after_429_and_not_before_it_says(gdc, tmp_path):
    row = row_of(next(gdc.source.items()))
    waited = []
    stop = threading.Event()
    stop.wait = waited.append
    gdc.first = [
        Answer(429, b"", {"Retry-After": "7"}),
        Answer(
            503,
            b"",
            {
                "Retry-After": "Sat, 28 Nov 2026 10:00:09 GMT",
                "Date": "Sat, 28 Nov 2026 10:00:00 GMT",
            },
        ),
    ]
    gdc.source.fetch(row, tmp_path / "a.svs", stop)
    assert waited == [7, 9]
    gdc.first = [Answer(429, b"", {"Retry-After": "99999"})]
    with pytest.raises(Unanswered, match="asks to wait 99999 s"):
        fetch(gdc.source, row, tmp_path / "b.svs")


def test_a_wrong_checksum_and_a_replaced_file_of_the_gdc_are_errors(gdc, tmp_path):
    row = row_of(next(gdc.source.items()))
    gdc.served["e580"] = A[:-1] + b"x"
    with pytest.raises(SourceError, match="MD5"):
        fetch(gdc.source, row, tmp_path / "a.svs")
    gdc.served["e580"] = A + b"x"
    with pytest.raises(Replaced):
        fetch(gdc.source, row, tmp_path / "a.svs")
    del gdc.served["e580"]
    with pytest.raises(Refused, match=r"not there, or hidden \(404\)"):
        fetch(gdc.source, row, tmp_path / "a.svs")
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_is_down_is_an_error_after_some_tries(tmp_path):
    source = Gdc("TCGA-XX", url="http://127.0.0.1:9/", pause=0.001)
    with pytest.raises(Unanswered, match="the connection fails"):
        list(source.items())


def test_an_archive_of_grand_challenge_is_listed_without_personal_fields(challenge):
    items = list(challenge.source.items())
    assert [i.source_id for i in items] == ["77aa", "88bb", "99cc"]
    row = row_of(items[0], patient="p-0000000000000001")
    assert (row.stain_class, row.stain, row.stain_from) == ("ihc", "CD8", "name")
    assert (row.mpp_value, row.width, row.height) == (0.25, 98304, 81920)
    assert (row.slide, row.file) == ("77aa", "grand-challenge/ihc/77aa.tif")
    for secret in SECRETS:
        assert secret not in repr(row)
        assert secret not in repr(items[0])
    assert items[0].patient == "MRN0098"  # for the code alone


def test_a_slide_of_grand_challenge_comes_from_storage_without_the_token(challenge, tmp_path):
    row = row_of(next(challenge.source.items()))
    challenge.storage.cut = 90_000
    assert fetch(challenge.source, row, tmp_path / "a.tif") == hashlib.sha256(A).hexdigest()
    assert (tmp_path / "a.tif").read_bytes() == A
    starts = [r.start for r in challenge.storage.requests]
    assert starts == [0, 90_000, 180_000]
    assert all("authorization" not in r.headers for r in challenge.storage.requests)
    assert challenge.signed == 3


def test_an_expired_signature_is_asked_for_again(challenge, tmp_path):
    row = row_of(next(challenge.source.items()))
    challenge.storage.expired = 2
    fetch(challenge.source, row, tmp_path / "a.tif")
    assert challenge.signed == 3
    challenge.storage.expired = 99
    with pytest.raises(SourceError, match="clock of this machine"):
        fetch(challenge.source, row, tmp_path / "b.tif")


def test_a_dicom_slide_of_grand_challenge_comes_as_a_folder(challenge, tmp_path):
    challenge.images = {"dd00": ("1.2.1", "1.2.2")}
    challenge.storage.files = {"1.2.1": A, "1.2.2": B}
    row = row_of(next(challenge.source.items()))
    assert (row.file, row.problem) == ("grand-challenge/ihc/dd00", "")
    challenge.storage.expired = 1
    challenge.storage.cut = 120_000
    place = tmp_path / row.file
    found = fetch(challenge.source, row, place)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == {"1.2.1.dcm": A, "1.2.2.dcm": B}
    assert challenge.source.verify(replace(row, sha256=found), place) == ""
    assert all(r.headers["x-signed"] == "SIGNED" for r in challenge.storage.requests)
    (place / "1.2.1.dcm").unlink()
    before = len(challenge.storage.requests)
    challenge.storage.cut = None
    assert fetch(challenge.source, replace(row, sha256=found), place) == found
    assert len(challenge.storage.requests) == before + 1


def test_no_access_says_what_to_do_and_no_token_is_shown(challenge, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    row = row_of(next(challenge.source.items()))
    fetch(challenge.source, row, tmp_path / "a.tif")
    challenge.refuses = True
    texts = []
    for action in (
        lambda: list(challenge.source.items()),
        lambda: fetch(challenge.source, row, tmp_path / "b.tif"),
        lambda: list(open_source("grand-challenge:other").items()),
    ):
        monkeypatch.setenv("GRAND_CHALLENGE_URL", f"{challenge.address}/api/v1/")
        with pytest.raises(PathEncoderError) as error:
            action()
        texts.append(str(error.value) + repr(error.value.__cause__))
    assert "ask the archive's editors" in texts[0]
    challenge.refuses = False
    monkeypatch.setenv("GRAND_CHALLENGE_AUTHORIZATION", "BEARER tok-1234-old")
    with pytest.raises(Refused, match="401") as error:
        list(open_source("grand-challenge:ihc").items())
    texts += [str(error.value), repr(challenge.source.client), caplog.text]
    assert "tok-1234" not in "".join(texts)
    assert "SIGNED" not in "".join(texts)


def test_a_token_is_needed_and_never_sent_in_the_clear(monkeypatch):
    monkeypatch.delenv("GRAND_CHALLENGE_AUTHORIZATION", raising=False)
    with pytest.raises(ConfigError, match="no token"):
        GrandChallenge("ihc")
    monkeypatch.setenv("GRAND_CHALLENGE_AUTHORIZATION", "tok-1234")
    with pytest.raises(ConfigError, match="unencrypted"):
        GrandChallenge("ihc", "http://example.org/api/v1/")


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3, monkeypatch, request):
    with s3_bucket(s3, f"b{abs(hash(request.node.name))}", monkeypatch) as url:

        def put(objects):
            for key, data in objects.items():
                obstore.put(store_of(url), key, data)
            return url

        yield put


def test_slides_of_a_store_are_listed_and_come_whole(bucket, tmp_path):
    url = bucket(
        {
            f"p/{NAME.format(1)}": A,
            "p/m.mrxs": b"1",
            "p/m/Index.dat": B,
            "p/note.txt": b"x",
        }
    )
    source = Objects(f"{url}/p/")
    items = {i.source_id: i for i in source.items()}
    assert set(items) == {NAME.format(1), "m.mrxs"}
    assert items[NAME.format(1)].patient == "TCGA-XX-0001"
    rows = {key: row_of(item) for key, item in items.items()}
    for row in rows.values():
        place = tmp_path / row.file
        assert fetch(source, row, place) == sha256_of(place)
        assert source.verify(row, place) == ""
    one = tmp_path / rows[NAME.format(1)].file
    assert one.read_bytes() == A
    assert (tmp_path / rows["m.mrxs"].file).with_suffix("").joinpath("Index.dat").read_bytes() == B
    obstore.put(store_of(url), f"p/{NAME.format(1)}", A[::-1])
    with pytest.raises(Replaced, match="ETag"):
        fetch(source, rows[NAME.format(1)], tmp_path / "again.svs")


def test_the_idc_is_listed_offline_and_a_series_comes_as_a_folder(bucket, tmp_path):
    url = bucket({"u1/a.dcm": A, "u1/b.dcm": B, "u2/a.dcm": B})
    index = tmp_path / "index.parquet"
    pq.write_table(pa.Table.from_pylist([series(1, url), series(2, url), series(3, url)]), index)
    source = Idc("CGCI-BLGSP", index)
    items = list(source.items())
    assert [i.source_id for i in items] == ["1.2.1", "1.2.2"]
    row = row_of(items[0])
    assert (row.patient, row.licence) == ("published:BLGSP-1", "CC-BY-4.0")
    assert (row.stain_class, row.stain, row.organ) == ("ihc", "Ki-67", "lymph node")
    assert "34Y" not in repr(items)
    place = tmp_path / row.file
    found = fetch(source, row, place)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == {"a.dcm": A, "b.dcm": B}
    assert source.verify(Row(slide="x", sha256=found), place) == ""
    with pytest.raises(SourceError, match="no files"):
        fetch(source, row_of(items[0], checksum=f"prefix:{url}/gone"), tmp_path / "x")
    with pytest.raises(ConfigError, match="nearest: cgci_blgsp"):
        list(Idc("cgci_blgs", index).items())


def series(number, url):
    return {
        "collection_id": "cgci_blgsp" if number < 3 else "lidc",
        "PatientID": f"BLGSP-{number}",
        "PatientAge": "34Y",
        "PatientSex": "F",
        "StudyDate": "2001-01-01",
        "SeriesInstanceUID": f"1.2.{number}",
        "SeriesDescription": "FFPE Ki67 primary",
        "BodyPartExamined": "LYMPH NODE",
        "Modality": "SM" if number < 3 else "CT",
        "Manufacturer": "Leica",
        "ManufacturerModelName": "GT450",
        "license_short_name": "CC BY 4.0",
        "series_aws_url": f"{url}/u{number}/*",
        "series_size_MB": 0.35,
    }


def test_the_public_buckets_of_the_idc_need_no_credentials(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    store_of.cache_clear()
    config = store_of("s3://idc-open-data/0123").config
    assert (config["skip_signature"], config["region"]) == ("true", "us-east-1")
    assert "skip_signature" not in store_of("s3://another/0123").config
    store_of.cache_clear()


def test_what_is_no_source_is_refused():
    for name in ("gdc:", "nothing-here", "gcd:TCGA-XX", "https://host/a.svs", "gdc:TCGA-XX/wet"):
        with pytest.raises(ConfigError):
            open_source(name)

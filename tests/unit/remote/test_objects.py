"""URLs of stores."""

import json
import os
import sys
from pathlib import Path

import pytest

from pathencoder.errors import ConfigError, MissingExtra, SlideError
from pathencoder.remote import objects
from pathencoder.remote.objects import (
    Unreachable,
    UrlPath,
    as_url,
    is_remote,
    join,
    split,
    unread,
    url_path,
)


@pytest.mark.parametrize("url", ["s3://b/a.svs", "gs://b", "az://c/x", "https://h/a", "S3://b/a"])
def test_urls_are_remote(url):
    assert is_remote(url)
    assert is_remote(Path(url))  # with one slash
    assert as_url(os.fspath(Path(url))).lower() == url.lower()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("s3a://b/a.svs", "s3://b/a.svs"),
        ("gcs://b/a.svs", "gs://b/a.svs"),
        ("abfs://c/a.svs", "az://c/a.svs"),
        ("ABFSS://c@account.dfs.core.windows.net/a", "az://c@account.dfs.core.windows.net/a"),
    ],
)
def test_names_of_fsspec_are_those_of_the_stores(given, url):
    assert is_remote(given)
    assert as_url(given) == url
    assert str(url_path(given)) == url


@pytest.mark.parametrize("path", ["a.svs", "/s3/a", "s3", "s3:", "c:/a.svs", "ftp://a/b", "s3:///"])
def test_paths_are_not(path):
    assert not is_remote(path)


def test_a_url_as_a_path_keeps_its_slashes():
    path = UrlPath("s3://bucket/a folder/ü.svs")
    assert str(path) == os.fspath(path) == "s3://bucket/a folder/ü.svs"
    assert (path.name, path.suffix, path.stem) == ("ü.svs", ".svs", "ü")
    assert str(path.parent) == "s3://bucket/a folder"
    assert path == UrlPath("s3://bucket/a folder/ü.svs")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket/a/b c.svs", ("s3://bucket/a", "b c.svs")),
        ("s3://bucket/b.svs", ("s3://bucket", "b.svs")),
        ("s3://bucket", ("s3://bucket", "")),
        ("s3:/bucket/a/", ("s3://bucket", "a")),
        ("https://host:81/a/b%20c.svs", ("https://host:81/a", "b c.svs")),
        ("https://host/100%25.svs", ("https://host", "100%.svs")),
    ],
)
def test_folder_and_name_of_a_url(url, parts):
    assert split(url) == parts
    if parts[1] and not url.endswith("/"):
        assert join(*parts) == url


def test_a_folder_has_no_signed_url():
    with pytest.raises(ConfigError, match="names one slide") as caught:
        objects.store_of("https://host/a?X-Amz-Signature=SECRET")
    assert "SECRET" not in str(caught.value)


AZURITE = {
    "AZURE_STORAGE_ACCOUNT_NAME": "acc",
    "AZURE_STORAGE_ACCOUNT_KEY": "YQ==",
    "AZURE_STORAGE_USE_EMULATOR": "true",
}
GOOGLE = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}


@pytest.mark.full
@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("az://box/d/a.svs", "acc/box/d/a.svs"),
        ("abfs://box/d/a.svs", "acc/box/d/a.svs"),
        ("gs://bucket/d/a.svs", "bucket/d%2Fa%2Esvs"),
        ("gcs://bucket/d/a.svs", "bucket/d%2Fa%2Esvs"),
    ],
)
def test_one_object_of_azure_and_google_is_read_as_their_emulators_serve_it(
    url, place, monkeypatch, tmp_path
):
    from object_servers import web_server

    from pathencoder.remote.download import download

    with web_server({place: b"a slide"}) as web:
        for name, value in AZURITE.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", web.address)
        key = json.dumps({**GOOGLE, "gcs_base_url": web.address})
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", key)
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        objects.store_of.cache_clear()
        found = objects.head(as_url(url))
        assert (found.name, found.size) == ("a.svs", 7)
        download(as_url(url), found, tmp_path / "a.svs")
        assert (tmp_path / "a.svs").read_bytes() == b"a slide"
        assert objects.head(as_url(f"{url}x")) is None
    objects.store_of.cache_clear()


@pytest.mark.full
def test_an_account_of_azure_may_be_in_the_url():
    store, name = objects.located(as_url("abfss://box@acc.dfs.core.windows.net/a/b.svs"))
    assert (name, store.prefix) == ("b.svs", "a")
    assert store.config == {"account_name": "acc", "container_name": "box"}


def test_without_obstore_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    monkeypatch.setitem(sys.modules, "obstore", None)
    objects.store_of.cache_clear()
    with pytest.raises(MissingExtra, match=r"pip install 'pathencoder\[remote\]'"):
        objects.store_of("s3://bucket/a")


@pytest.mark.full
def test_a_store_that_does_not_answer_is_another_error_than_an_object(monkeypatch):
    from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError

    monkeypatch.setattr(objects, "_RETRY", {"max_retries": 0})
    objects.store_of.cache_clear()
    with pytest.raises(Unreachable, match="Check the network"):
        objects.head("http://127.0.0.1:9/a.svs")
    for kind in (GenericError, UnauthenticatedError):
        assert isinstance(unread(kind("no"), "s3://b/a"), Unreachable)
    for one in (PermissionDeniedError("no"), FileNotFoundError("no")):
        assert not isinstance(unread(one, "s3://b/a"), Unreachable)
    objects.store_of.cache_clear()


def test_a_web_server_is_not_listed():
    with pytest.raises(SlideError, match="does not list"):
        objects.listing("http://127.0.0.1:9/a")

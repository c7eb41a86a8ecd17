"""URLs of stores."""

import os
import sys
from pathlib import Path

import pytest

from pathencoder.errors import ConfigError, MissingExtra, SlideError
from pathencoder.remote import objects
from pathencoder.remote.objects import UrlPath, as_url, is_remote, split


@pytest.mark.parametrize("url", ["s3://b/a.svs", "gs://b", "az://c/x", "https://h/a", "S3://b/a"])
def test_urls_are_remote(url):
    assert is_remote(url)
    assert is_remote(Path(url))  # with one slash
    assert as_url(os.fspath(Path(url))).lower() == url.lower()


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
    ],
)
def test_folder_and_name_of_a_url(url, parts):
    assert split(url) == parts


@pytest.mark.full
def test_signed_urls_are_refused():
    with pytest.raises(ConfigError, match="signed URLs"):
        objects.store_of("https://host/a.svs?X-Amz-Signature=1")


def test_without_obstore_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    monkeypatch.setitem(sys.modules, "obstore", None)
    objects.store_of.cache_clear()
    with pytest.raises(MissingExtra, match=r"pip install 'pathencoder\[remote\]'"):
        objects.store_of("s3://bucket/a")


def test_a_web_server_is_not_listed():
    with pytest.raises(SlideError, match="does not list"):
        objects.listing("http://127.0.0.1:9/a")

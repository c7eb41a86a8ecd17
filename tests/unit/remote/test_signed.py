"""URLs with secrets: a signature in the query, or a user and password."""

import pickle

import pytest

from pathencoder.errors import ConfigError
from pathencoder.remote import signed
from pathencoder.remote.objects import Object, url_path
from pathencoder.remote.signed import is_signed, with_secrets, without_secrets
from pathencoder.remote.slides import RemoteSlide

BARE = "https://host:81/d/my%20scan.svs"


@pytest.mark.parametrize(
    "url",
    [f"{BARE}?X-Sig=a/b//c&x=1", "https://me:pass@host:81/d/my%20scan.svs", f"{BARE}?a?b"],
)
def test_secrets_are_apart_from_the_url(url):
    assert without_secrets(url) == BARE
    assert with_secrets(BARE) == url
    assert is_signed(BARE)
    path = url_path(url)
    assert (str(path), path.name) == (BARE, "my%20scan.svs")


def test_another_process_gets_the_secrets_of_a_slide(monkeypatch):
    without_secrets(f"{BARE}?sig=SECRET")
    slide = RemoteSlide(BARE, "https://host:81/d", (Object("my scan.svs", 1, "", 0),))
    assert "SECRET" not in repr(slide)
    sent = pickle.dumps(slide)
    monkeypatch.setattr(signed, "_SECRETS", {})
    assert pickle.loads(sent) == slide
    assert with_secrets(BARE) == f"{BARE}?sig=SECRET"


def test_the_last_signature_counts():
    without_secrets(f"{BARE}?sig=1")
    without_secrets(f"{BARE}?sig=2")
    assert with_secrets(BARE) == f"{BARE}?sig=2"


@pytest.mark.parametrize("url", ["https://host/other.svs", "s3://bucket/a?b.svs"])
def test_a_url_without_secrets_stays(url):
    assert without_secrets(url) == with_secrets(url) == url
    assert not is_signed(url)


def test_a_url_that_cannot_be_parsed_is_refused_without_repeating_it():
    with pytest.raises(ConfigError) as caught:
        without_secrets("https://[host/a.svs?sig=SECRET")
    assert "SECRET" not in str(caught.value)

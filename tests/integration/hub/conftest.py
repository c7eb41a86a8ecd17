"""A loopback Hub, and the real client pointed at it."""

import contextlib

import hub_server
import pytest
from huggingface_hub import constants, file_download


@pytest.fixture
def server():
    with hub_server.running() as running:
        yield running


@pytest.fixture(autouse=True)
def client(server, tmp_path, monkeypatch):
    """The client as HF_ENDPOINT, HF_HOME and an absent token would set it up.

    It reads its environment once, at import.
    """
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    address = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # before 1.0 the second has a copy
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", address, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # newer ones have it
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 2)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.suppress(AttributeError):  # waiting between attempts is not what is tested
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    yield
    # sessions outlive a test: one that was made offline would stay so (reset_sessions before 1.0)
    from huggingface_hub.utils import _http

    (getattr(_http, "close_session", None) or _http.reset_sessions)()

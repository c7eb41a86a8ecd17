"""Without a network: one sentence, without delay, that says what is missing and what to do."""

import os
import socket
import subprocess
import sys

import pytest
from huggingface_hub import constants

import pathencoder
from pathencoder.errors import OfflineError
from pathencoder.pretrained import locate, reach


@pytest.fixture
def away(monkeypatch):
    """The Hub at a closed port; the client, which retries for half a minute, must not be called."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(reach, "_known", {})  # a server of an earlier test may have had this port
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(
        "huggingface_hub.file_download.get_hf_file_metadata",
        lambda **_: pytest.fail("the Hub was asked"),
    )
    return url


@pytest.mark.parametrize("name", ["phikon", "owner/repo"])
def test_one_error_without_others_behind_it(away, name):
    with pytest.raises(
        OfflineError, match=rf"{away} does not answer.*`pathencoder fetch {name}`.*HF_ENDPOINT"
    ) as caught:
        pathencoder.load_encoder(name)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_gate_is_named_first(away):
    with pytest.raises(
        OfflineError,
        match=(
            rf"^uni2-h is gated \(terms.*accept its terms at {away}/MahmoodLab/UNI2-h.*does not"
            r" answer"
        ),
    ):
        pathencoder.load_encoder("uni2-h")


@pytest.mark.parametrize("name", ["phikon", "uni2-h", "owner/repo"])
def test_fetch_does_not_advise_what_was_just_done(away, name):
    with pytest.raises(
        OfflineError, match="copy its cache folder here, or set HF_ENDPOINT to a mirror"
    ) as caught:
        locate.fetch(name)
    assert "pathencoder fetch" not in str(caught.value)


def test_fetch_where_the_network_is_switched_off(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match=r"disabled.*Unset HF_HUB_OFFLINE"):
        locate.fetch("phikon")


@pytest.mark.parametrize("switch", [{}, {"HF_HUB_OFFLINE": "1"}])
@pytest.mark.parametrize(
    "arguments", [("fetch", "phikon", "--json"), ("info", "owner/repo"), ("verify", "owner/repo")]
)
def test_the_command_prints_one_sentence(tmp_path, away, switch, arguments):
    keep = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "XDG_CACHE"))
    }
    variables = {**keep, "HF_HOME": str(tmp_path), "HF_ENDPOINT": away, **switch}
    done = subprocess.run(
        [sys.executable, "-m", "pathencoder", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.endswith("...")]
    assert len(lines) == 1, done.stderr
    assert "is not on this machine" in lines[0]

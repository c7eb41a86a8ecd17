"""A Hub that refuses or answers wrongly, and caches that cannot be written: errors that help."""

import contextlib
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest
import torch
from hub_case import (
    ours,
    pickled,
    row,
    state,
    timms,
)
from huggingface_hub import constants
from safetensors.torch import save

import pathencoder
from pathencoder.errors import (
    ChecksumError,
    ConfigError,
    GatedEncoder,
    IncompatibleWeights,
    PathEncoderError,
    StoreError,
    UnknownEncoder,
    UnsafeWeights,
)
from pathencoder.pretrained import folder, hub, hub_errors, locate
from pathencoder.verify import verify

# Gates, tokens and names


def test_a_gated_repository_without_a_token(server, tmp_path):
    server.add("owner/small", ours(tmp_path), gated=True)
    with pytest.raises(
        GatedEncoder,
        match=rf"Accept its terms at {server.url}/owner/small.*hf auth login.*HF_TOKEN",
    ):
        pathencoder.load_encoder("owner/small")


def test_a_gated_repository_with_a_token_without_access(server, tmp_path):
    server.add("owner/small", ours(tmp_path), gated=True)
    with pytest.raises(GatedEncoder, match="no access to owner/small yet"):
        pathencoder.load_encoder("owner/small", token=hub_server.OTHER_TOKEN)


def test_a_wrong_token(server, tmp_path):
    server.add("owner/small", ours(tmp_path), gated=True)
    with pytest.raises(GatedEncoder, match="does not accept your token") as caught:
        pathencoder.load_encoder("owner/small", token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)


@pytest.mark.parametrize("how", ["argument", "HF_TOKEN"])
def test_a_gated_repository_with_access(server, monkeypatch, tmp_path, how):
    server.add("owner/small", ours(tmp_path), gated=True)
    if how == "HF_TOKEN":
        monkeypatch.setenv("HF_TOKEN", hub_server.GOOD_TOKEN)
    encoder = pathencoder.load_encoder(
        "owner/small", token=hub_server.GOOD_TOKEN if how == "argument" else None
    )
    assert verify(encoder).ok
    elsewhere = [headers for _, path, headers in server.asked if path.startswith("/cdn/")]
    assert elsewhere
    assert not any("authorization" in headers for headers in elsewhere), (
        "the token went to another host"
    )


def test_a_private_repository_looks_like_none(server, tmp_path):
    server.add("owner/small", ours(tmp_path), private=True)
    with pytest.raises(UnknownEncoder, match="or it is private"):
        pathencoder.load_encoder("owner/small")
    assert pathencoder.load_encoder("owner/small", token=hub_server.GOOD_TOKEN)


def test_no_such_repository_names_the_nearest(server):
    with pytest.raises(
        UnknownEncoder, match=r"no repository owner/virchow-2 .*nearest: .*virchow2"
    ):
        pathencoder.load_encoder("owner/virchow-2")


def test_no_repository_name_at_all():
    with pytest.raises(UnknownEncoder, match="owner/repo"):
        pathencoder.load_encoder("owner/-bad-.")


# Repositories that hold something else


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"README.md": b"# nothing"}, ConfigError, r"has no config\.json"),
        ({"config.json": b"<html>"}, ConfigError, "JSON"),
        ({"config.json": b'{"model_type": "bert"}'}, ConfigError, "transformers"),
        (timms({"weights.h5": b""}), IncompatibleWeights, "holds none of"),
        (timms({"model.safetensors": b"not tensors"}), IncompatibleWeights, "complete safetensors"),
        (timms({"model.safetensors": save({"a": torch.zeros(1)})}), IncompatibleWeights, "missing"),
    ],
)
def test_what_is_no_encoder(server, files, kind, message):
    server.add("owner/other", files)
    for pretrained in (True, False) if kind is ConfigError else (True,):
        with pytest.raises(kind, match=message):
            pathencoder.load_encoder("owner/other", pretrained=pretrained)


class Bomb:
    def __reduce__(self):
        return (exec, ("import sys; sys.modules['exploded'] = sys",))


def test_a_poisoned_pickle_is_refused(server, tmp_path):
    commit = server.add(
        "owner/evil", timms({"pytorch_model.bin": pickled({"a": torch.zeros(1), "b": Bomb()})})
    )
    with pytest.raises(UnsafeWeights, match="Ask the publisher for safetensors"):
        pathencoder.load_encoder("owner/evil")
    assert "exploded" not in sys.modules
    assert not (tmp_path / "cache/models--owner--evil/pathencoder" / commit).exists()


# Checksums


def test_a_checksum_of_the_publisher(server, tmp_path):
    server.add("owner/small", ours(tmp_path, sha256="0" * 64))
    with pytest.raises(ChecksumError, match="the recorded one is 0000"):
        pathencoder.load_encoder("owner/small")


def test_a_rows_checksum_is_of_its_pinned_bytes(server, monkeypatch):
    data = pickled(state())
    pinned = server.add("owner/small", {"pytorch_model.bin": data})
    row(monkeypatch, revision=pinned, sha256=hashlib.sha256(data).hexdigest())
    later = server.add("owner/small", {"pytorch_model.bin": pickled(state(2))})
    pathencoder.load_encoder("small")
    assert pathencoder.load_encoder("small", revision=later).spec.sha256 is None
    row(monkeypatch, revision=later, sha256=hashlib.sha256(b"other").hexdigest())
    server.repos["owner/small"].commits[later]["pytorch_model.bin"] = pickled({"a": Bomb()})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "2")
    with pytest.raises(ChecksumError):  # noticed before it is unpickled
        pathencoder.load_encoder("small")


def test_a_large_file_is_hashed_once(server, tmp_path, monkeypatch):
    server.add("owner/small", ours(tmp_path))
    pathencoder.load_encoder("owner/small")
    monkeypatch.setattr(folder, "sha256_of", lambda _: pytest.fail("hashed again"))
    pathencoder.load_encoder("owner/small")
    blob = (locate.locate("owner/small").weights).resolve()
    os.utime(blob, ns=(1, 1))
    with pytest.raises(pytest.fail.Exception):
        pathencoder.load_encoder("owner/small")


# Caches


def test_cache_dir(server, tmp_path):
    server.add("owner/small", ours(tmp_path))
    pathencoder.load_encoder("owner/small", cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/models--owner--small").is_dir()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("files", ["ours", "pickle"])
def test_a_read_only_cache(server, tmp_path, monkeypatch, files):
    server.add(
        "owner/small",
        ours(tmp_path) if files == "ours" else timms({"pytorch_model.bin": pickled(state())}),
    )
    locate.fetch("owner/small")
    before = sorted((tmp_path / "cache").rglob("*"))
    with read_only(tmp_path / "cache", monkeypatch):
        encoder = pathencoder.load_encoder("owner/small")
        assert torch.equal(encoder.network.norm.weight, state()["norm.weight"])
        assert pathencoder.load_encoder("owner/small", local_files_only=True)
    assert sorted((tmp_path / "cache").rglob("*")) == before


@contextlib.contextmanager
def read_only(place, monkeypatch):
    """Make `place` read-only: by permissions, and for root by refusing open and mkdir there."""
    import builtins

    def guard(call, writes):
        def guarded(path, *args, **kwargs):
            if str(path).startswith(str(place)) and writes(args, kwargs):
                raise OSError(30, "Read-only file system", str(path))
            return call(path, *args, **kwargs)

        return guarded

    def always(args, kwargs):
        return True

    def opens(args, kwargs):
        return any(c in str(kwargs.get("mode", args[0] if args else "r")) for c in "wax+")

    def flags(args, kwargs):
        asked = args[0] if args else kwargs.get("flags", 0)
        return bool(asked & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", guard(builtins.open, opens))
        patch.setattr(io, "open", guard(io.open, opens))
        patch.setattr(os, "open", guard(os.open, flags))
        patch.setattr(os, "mkdir", guard(os.mkdir, always))
        yield


def test_a_cache_that_cannot_be_written_says_so(server, tmp_path):
    server.add("owner/small", ours(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write to the cache .*HF_HOME"):
        pathencoder.load_encoder("owner/small", cache_dir=tmp_path / "file")


def test_a_full_disk_says_so(tmp_path):
    asked = hub.Repository("owner/small", None, hub.Access(cache_dir=tmp_path), "small")
    error = hub_errors.explain(OSError(28, "No space left on device"), asked, "model.safetensors")
    assert isinstance(error, StoreError)
    assert "No space left" in str(error)


def test_no_error_of_the_client_gets_through(server):
    """Whatever huggingface_hub raises on a refusal, the caller sees one of our family."""
    for status in (400, 402, 404, 409, 418, 429, 451, 502):
        server.broken = status
        with pytest.raises(PathEncoderError):
            pathencoder.load_encoder("owner/none")


# The environment, as a user sets it: a process of its own, since the client reads it at import

SCRIPT = """
import sys
from pathencoder import errors
from pathencoder.pretrained import locate
try:
    located = locate.locate("owner/small")
except errors.PathEncoderError as error:
    print(type(error).__name__)
else:
    print(located.spec.name, located.weights.parent.name)
assert "torch" not in sys.modules
"""


def run(**environment):
    keep = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "XDG_CACHE"))
    }
    variables = {**keep, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_environment_variables(server, tmp_path):
    commit = server.add("owner/small", ours(tmp_path), gated=True)
    there = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
    assert run(**there) == ["GatedEncoder"]
    assert run(**there, HF_HUB_OFFLINE="1", HF_TOKEN=hub_server.GOOD_TOKEN) == ["OfflineError"]
    assert run(**there, HF_TOKEN=hub_server.GOOD_TOKEN) == ["small", commit]
    assert (Path(there["HF_HOME"]) / "hub/models--owner--small").is_dir()
    asked = len(server.asked)
    assert run(**there, HF_HUB_OFFLINE="1") == ["small", commit]
    assert len(server.asked) == asked

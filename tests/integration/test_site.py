"""The documentation site, built and drawn by a browser."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest
from paths import ROOT

pytestmark = [pytest.mark.full, pytest.mark.browser]

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
    "--enable-logging=stderr",
    "--dump-dom",
)
FOREIGN = re.compile(r'\bsrc="https?://(?!127\.)[^"]*"|<link[^>]*stylesheet[^>]*"https?://[^>]*>')


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site and keeps the status of every request in the server's `answers`."""

    def log_request(self, code="-", size="-"):
        """Keep (path, status)."""
        self.server.answers.append((self.path, int(code)))

    def log_message(self, *_):
        """Print nothing."""


def run(*command, cwd):
    """A command in a folder, with this repository on Python's path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A fresh build of the site, served on loopback."""
    work = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", work / "docs")
    shutil.copy(ROOT / "mkdocs.yml", work)
    (work / "pathencoder").symlink_to(ROOT / "pathencoder")
    run(sys.executable, ROOT / "scripts/docs_cli.py", "docs/cli.md", cwd=work)
    settings = "docs/pretraining-settings.md"
    run(sys.executable, ROOT / "scripts/docs_settings.py", settings, cwd=work)
    built = run(sys.executable, "-m", "zensical", "build", "--clean", "--strict", cwd=work)
    # --strict does not count what the reader of docstrings warns of
    assert [line for line in built.stdout.splitlines() if line.startswith("griffe")] == []
    handler = functools.partial(Handler, directory=work / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        serving.answers = []
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("", "Start in five minutes"),
        ("api/encoders/", "load_encoder"),
        ("cli/", "--target-mpp"),
        ("pretraining-settings/", "optim.lr"),
    ],
)
def test_pages_are_drawn_without_errors_or_other_hosts(server, page, expected, chromium, tmp_path):
    server.answers.clear()
    address = f"http://127.0.0.1:{server.server_port}/{page}"
    drawn = run(chromium, *OPTIONS, f"--user-data-dir={tmp_path}", address, cwd=tmp_path)
    messages = [line for line in drawn.stderr.splitlines() if "CONSOLE" in line]
    assert messages == []
    assert expected in drawn.stdout
    assert "js-focus-visible" in drawn.stdout  # a class that the theme's script sets
    assert FOREIGN.findall(drawn.stdout) == []
    assert [answer for answer in server.answers if answer[1] >= 400] == []

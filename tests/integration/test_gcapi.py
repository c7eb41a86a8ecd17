"""Our client of grand-challenge.org and gcapi list the same slides, of the same server.

gcapi cannot live beside huggingface_hub 2. Give it an environment of its own, and name its Python:

    python3.11 -m venv /tmp/gcapi && /tmp/gcapi/bin/pip install gcapi==0.16.1
    GCAPI_PYTHON=/tmp/gcapi/bin/python pytest tests/integration/test_gcapi.py
"""

import json
import os
import shutil
import subprocess

import pytest
from archive_servers import GrandChallengeService, StorageService, serving

from training.archive.sources.grand_challenge import GrandChallenge

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not os.environ.get("GCAPI_PYTHON"), reason="GCAPI_PYTHON is not set"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate"),
]
LISTED = """
import json, sys, gcapi
client = gcapi.Client(token="tok-1234", base_url=sys.argv[1], verify=sys.argv[2])
archive = client.archives.detail(slug="ihc")
found = []
for item in client.archive_items.iterate_all(params={"archive": archive.pk}):
    for value in item.values:
        if value.image:
            image = client.images.detail(api_url=value.image)
            files = [f.file for f in image.files]
            found.append([image.pk, image.width, image.height, image.voxel_width_mm, len(files)])
print(json.dumps(found))
"""


def certificate(folder):
    """A PEM file with a key and its certificate for 127.0.0.1."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
               "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
               "-keyout", key, "-out", cert]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    whole = folder / "whole.pem"
    whole.write_text(key.read_text() + cert.read_text())
    return whole


def test_gcapi_lists_the_slides_that_our_client_lists(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAND_CHALLENGE_AUTHORIZATION", "tok-1234")
    images = {f"{i:08x}-0000-4000-8000-000000000000": b"x" * i for i in range(130)}
    service = GrandChallengeService(images, StorageService({}))
    service.page = 1000  # gcapi asks for 100 at a time, and takes a shorter answer for the last
    with serving(service):
        ours = list(GrandChallenge("ihc", f"{service.address}/api/v1/", pause=0.001).items())
    pem = certificate(tmp_path)
    with serving(service, tls=pem):
        done = subprocess.run(
            [os.environ["GCAPI_PYTHON"], "-c", LISTED, f"{service.address}/api/v1/", str(pem)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    assert [(i.source_id, i.width, i.height, i.mpp, 1) for i in ours] == [
        (pk, width, height, 1000 * millimetres, files)
        for pk, width, height, millimetres, files in theirs
    ]
    assert len(ours) == len(images)

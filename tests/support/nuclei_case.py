"""The `pathencoder nuclei` command on small images, and what it leaves behind."""

import csv
import json

import numpy as np
from PIL import Image
from synthetic_nuclei import tissue

from pathencoder.cli.main import run


def picture(path, size=(60, 75), nuclei=4, **settings):
    """A small image of 0.25 um per pixel, 150 x 120 px; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, _, _ = tissue(size, nuclei=nuclei, **settings)
    Image.fromarray(np.kron(image, np.ones((2, 2, 1), np.uint8))).save(path)
    return path


def nuclei(capsys, *arguments, mpp="0.25"):
    """Exit status and JSON of a command."""
    capsys.readouterr()
    status = run(["nuclei", *map(str, arguments), *(["--mpp", mpp] if mpp else []), "--json"])
    text = capsys.readouterr().out
    return status, json.loads(text) if text else None


def names(report):
    return [result["name"] for entry in report["inputs"] for result in entry["results"]]


def statuses(report):
    return [entry["status"] for entry in report["inputs"]]


def head(out, name):
    """The image properties in a GeoJSON file."""
    return json.loads((out / f"{name}.geojson").read_text(encoding="utf-8"))["pathencoder"]


def first_row(out, name):
    return next(csv.DictReader((out / f"{name}.csv").read_text().splitlines()))


def files(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}

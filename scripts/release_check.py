"""Check a release before it is tagged: what wheel and sdist hold, their sizes, and the README.

python scripts/release_check.py files DIST      # of the wheel and the sdist in a folder
python scripts/release_check.py readme BIN      # the README's commands, with the programs in BIN
python scripts/release_check.py needs DIST      # print what the wheel needs, without extras

`make release-check` runs both, and installs the wheel with the newest and the oldest versions.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MB = 1e6
WHEEL_MB, WEIGHTS_MB, DEFAULT_MB = 100, 90, 50  # the first is the package index's own limit
DEFAULT = "pathencoder-tiny"
# of each encoder's folder in the wheel
ENCODER_FILES = ("config.json", "model.safetensors", "README.md", "LICENSE", "metrics.json")
NEEDED = (
    "pathencoder/py.typed",
    "pathencoder/example.jpg",
    "pathencoder/pretrained/catalogue.toml",
    "pathencoder/pretrained/listed.toml",
    "pathencoder/explore/page/page.html",
)
_FOREIGN = re.compile(
    r"(^|/)(tests?|training|notebooks|model_cards|docs|scripts|runs|carry|shared|\.git|\.github"
    r"|__pycache__)/|\.(py[co]|svs|tiff?|ndpi|mrxs|dcm|h5|ipynb|csv|parquet|log)$"
)
# folders of a machine or of a person; placeholders such as /data/ are fine
_PRIVATE = re.compile(
    r"(?<![\w.])(?:/(?:work|root|workspace|mnt/\w+)/|/home/|/Users/|C:\\Users\\)[\w.-]+"
)
_TEXT = (".py", ".md", ".json", ".toml", ".html", ".js", ".css", ".txt", ".typed")
# commands of the README that need a network, slides or an extra, or that make this environment
_SKIPPED = {
    r"^pip ": "installs",
    r"^make ": "sets up the checkout",
    r"^python -m (?:training|tests)\b": "not part of the wheel",
    r"\b(?:s3|gs|az|https?)://": "needs a network",
    r"\.svs\b|\bslides/": "needs a slide",
    r"--layout (?:zarr|anndata)\b|^pathencoder export\b": "needs an extra",
    r"\bfetch\b": "needs a network",
}


@dataclass(frozen=True)
class Command:
    """A command of the README; `skipped` says why it is not run, "" if it is."""

    line: str
    skipped: str


def wheel_faults(sizes: Mapping[str, int], encoders: Sequence[str]) -> list[str]:
    """What a wheel lacks, and what it should not hold.

    Args:
        sizes: Bytes of each file by its path in the wheel.
        encoders: The folders of pathencoder/weights/.

    Returns:
        The faults as sentences.
    """
    wanted = [*NEEDED, *(f"pathencoder/weights/{e}/{f}" for e in encoders for f in ENCODER_FILES)]
    faults = [f"the wheel lacks {name}" for name in wanted if name not in sizes]
    licences = [name for name in sizes if ".dist-info/licenses/" in name]
    for place in ("LICENSE", *(f"pathencoder/weights/{e}/LICENSE" for e in encoders)):
        if not any(name.endswith(f".dist-info/licenses/{place}") for name in licences):
            faults.append(f"the wheel's metadata lack the licence {place}")
    return [*faults, *(f"the wheel holds {name}" for name in sizes if _FOREIGN.search(name))]


def sdist_faults(names: Iterable[str]) -> list[str]:
    """What an sdist lacks, and what it should not hold; paths without its top folder."""
    found = set(names)
    needed = ("pyproject.toml", "README.md", "LICENSE", "PKG-INFO", *NEEDED)
    faults = [f"the sdist lacks {name}" for name in needed if name not in found]
    return [*faults, *(f"the sdist holds {name}" for name in found if _FOREIGN.search(name))]


def size_faults(sizes: Mapping[str, int], wheel: int) -> list[str]:
    """What is too large: the wheel, all bundled weights, or those of the default encoder."""
    weights = sum(n for name, n in sizes.items() if name.startswith("pathencoder/weights/"))
    default = sum(
        n for name, n in sizes.items() if name.startswith(f"pathencoder/weights/{DEFAULT}/")
    )
    limits = (
        ("the wheel", wheel, WHEEL_MB),
        ("all bundled weights", weights, WEIGHTS_MB),
        (f"the folder of {DEFAULT}", default, DEFAULT_MB),
    )
    return [
        f"{what}: {size / MB:.1f} MB, at most {most} MB"
        for what, size, most in limits
        if size > most * MB
    ]


def private_paths(texts: Mapping[str, str]) -> list[str]:
    """Text files that name a folder of a machine or of a person."""
    return [
        f"{name} names {found[0]}"
        for name, text in texts.items()
        if (found := _PRIVATE.search(text))
    ]


def version_faults(version: str, changelog: str, citation: str) -> list[str]:
    """Where the version is not stated: the changelog's first heading, and CITATION.cff."""
    faults = []
    first = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    if first is None or first[1] != version:
        stated = first[1] if first else "none"
        faults.append(f"CHANGELOG.md begins with {stated}, the version is {version}")
    if f"\nversion: {version}\n" not in citation:
        faults.append(f"CITATION.cff does not hold version {version}")
    return faults


def readme_commands(text: str) -> list[Command]:
    """The commands of a README: lines of indented and of bash blocks, without their comments."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line[4:] for line in outside.splitlines() if line.startswith("    ")]
    commands = [re.sub(r"\s+#.*$", "", line).strip() for line in lines]
    return [Command(line, _why_skipped(line)) for line in commands if line]


def _why_skipped(line: str) -> str:
    return next((why for pattern, why in _SKIPPED.items() if re.search(pattern, line)), "")


def needs(metadata: str) -> list[str]:
    """The requirements in a wheel's METADATA, without those of its extras."""
    lines = re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE)
    return [line for line in lines if "extra ==" not in line]


def print_needs(folder: Path) -> list[str]:
    """Print what the wheel in a folder needs, a line each; no faults."""
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        print("\n".join(needs(wheel.read(name).decode("utf-8"))))
    return []


def check_files(folder: Path) -> list[str]:
    """The faults of the wheel and the sdist in a folder, and of the stated versions."""
    wheels, sdists = list(folder.glob("*.whl")), list(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        return [f"{folder} holds {len(wheels)} wheels and {len(sdists)} sdists instead of one each"]
    encoders = sorted(p.parent.name for p in (ROOT / "pathencoder/weights").glob("*/config.json"))
    with zipfile.ZipFile(wheels[0]) as wheel:
        sizes = {info.filename: info.file_size for info in wheel.infolist() if not info.is_dir()}
        texts = {
            name: wheel.read(name).decode("utf-8", "replace")
            for name in sizes
            if name.endswith(_TEXT)
        }
    with tarfile.open(sdists[0]) as sdist:
        inside = [m.name.partition("/")[2] for m in sdist.getmembers() if m.isfile()]
    version = wheels[0].name.split("-")[1]
    print(f"{wheels[0].name}: {wheels[0].stat().st_size / MB:.1f} MB, {len(sizes)} files")
    print(f"{sdists[0].name}: {sdists[0].stat().st_size / MB:.1f} MB, {len(inside)} files")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if f"## {version} (unreleased)" in changelog:
        print(f"to do before the tag: the date of {version} in CHANGELOG.md")
    return [
        *wheel_faults(sizes, encoders),
        *sdist_faults(inside),
        *size_faults(sizes, wheels[0].stat().st_size),
        *private_paths(texts),
        *version_faults(version, changelog, (ROOT / "CITATION.cff").read_text(encoding="utf-8")),
    ]


def check_readme(programs: Path) -> list[str]:
    """Run the README's commands with the programs of a folder, on small inputs; the faults."""
    faults = []
    environment = {
        **os.environ,
        "PATH": f"{programs.resolve()}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as work:
        _small_inputs(Path(work), programs, environment)
        for command in readme_commands((ROOT / "README.md").read_text(encoding="utf-8")):
            if command.skipped:
                print(f"skipped ({command.skipped}): {command.line}")
                continue
            done = subprocess.run(
                command.line,
                shell=True,
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            print(f"exit status {done.returncode}: {command.line}")
            if done.returncode or "Traceback" in done.stderr:
                faults.append(f"{command.line}: exit status {done.returncode}\n{done.stderr}")
    return faults


def _small_inputs(work: Path, programs: Path, environment: Mapping[str, str]) -> None:
    """A folder of tiles, and the features of a slide as CLAM writes them, made by the wheel."""
    code = """
import h5py, numpy as np
from pathlib import Path
from PIL import Image
import pathencoder

picture = Image.open(Path(pathencoder.__file__).with_name("example.jpg")).convert("RGB")
Path("tiles").mkdir()
Path("out").mkdir()
for i in range(4):
    picture.crop((i * 40, 0, i * 40 + 96, 96)).save(f"tiles/{i}.png")
with h5py.File("out/slide.h5", "w") as file:
    file["features"] = np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)
    file["coords"] = np.stack(np.divmod(np.arange(9), 3), axis=1) * 256
"""
    subprocess.run(
        [programs.resolve() / "python", "-c", code], cwd=work, env=dict(environment), check=True
    )


def main(arguments: Sequence[str]) -> int:
    """Run one check; returns the exit status."""
    checks = {"files": check_files, "readme": check_readme, "needs": print_needs}
    if len(arguments) != 2 or arguments[0] not in checks:
        print(__doc__, file=sys.stderr)
        return 2
    faults = checks[arguments[0]](Path(arguments[1]))
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    if arguments[0] != "needs":
        print(f"{arguments[0]}: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

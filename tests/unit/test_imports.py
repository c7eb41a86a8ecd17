"""The law of imports: what may import what, what the first import costs, and that files stay short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pathencoder

PACKAGE = Path(pathencoder.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400

# A module may import from its own layer and from those before it. A folder stands for all that is in it.
LAYERS = (
    (
        "errors",
        "pooling",
        "spec",
        "compat",
        "walk",
        "tables",
        "tiff_tags",
        "tiff_colours",
        "jpeg_colours",
        "file_kinds",
        "mpp_claims",
        "mpp",
        "image_scale",
    ),
    (
        "arrays",
        "decode",
        "depth",
        "images",
        "jpeg",
        "tiff",
        "transforms",
        "wrapped",
        "network",
        "runtime",
        "checkpoint",
        "folder",
        "catalogue",
        "timm_config",
        "hub",
        "hub_errors",
        "reach",
        "keys",
    ),
    ("stream", "origin", "derived", "saving", "encoder"),
    ("load",),
    ("pictures", "stain", "metrics", "slides", "heads", "nuclei", "integrations", "export"),
    ("cli", "__main__"),
)
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}
AGAINST = {("encoder", "load")}  # Encoder.from_pretrained is load_encoder under the name that huggingface_hub's users look for


def imported(tree):
    """Every module that is imported anywhere in a file, but for what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def imports_of(file):
    return set(imported(ast.parse(file.read_text(encoding="utf-8"))))


def unit(module):
    """The part below pathencoder that a module belongs to; None for others, and for the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pathencoder" and len(parts) > 1 and parts[1] in LAYER else None


def relative(file):
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_the_package_never_imports_training(file):
    assert not {m for m in imports_of(file) if m.split(".")[0] in ("training", "tests")}


@pytest.mark.parametrize("file", [f for f in FILES if f != PACKAGE / "__init__.py"], ids=relative)
def test_imports_follow_the_arrows(file):
    here = relative(file).removesuffix(".py").replace("\\", "/").split("/")[0]
    assert here in LAYER, f"{here} belongs to no layer: give it one in LAYERS"
    there = {unit(m) for m in imports_of(file)} - {None}
    upwards = {t for t in there if LAYER[t] > LAYER[here] and (here, t) not in AGAINST}
    assert not upwards


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_timm_comes_only_through_compat(file):
    if file.name == "compat.py":
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {m.split(".")[0] for m in imported(tree)}
    if found & {"timm", "torchvision"}:
        assert "compat.import_timm()" in file.read_text(encoding="utf-8")
        top = {
            m.split(".")[0] for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) for m in imported(ast.Module([node], []))
        }
        assert not top & {"timm", "torchvision"}


def test_files_stay_short():
    files = [*FILES, *(ROOT / "training").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert {str(f): n for f in files if (n := f.read_text(encoding="utf-8").count("\n")) > LONGEST} == {}


def loaded_by(code):
    """The top-level modules that a fresh interpreter holds after running `code`."""
    listing = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*{{m.split('.')[0] for m in sys.modules}})"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(listing.stdout.split())


def test_importing_the_package_loads_neither_torch_nor_timm():
    heavy = {"torch", "timm", "torchvision", "huggingface_hub", "numpy", "PIL", "h5py"}
    assert not loaded_by("import pathencoder; dir(pathencoder); pathencoder.__version__") & heavy


def test_listing_images_needs_no_torch():
    assert "torch" not in loaded_by("import pathencoder; pathencoder.list_images")


def test_every_public_name_is_there_and_sorted():
    names = pathencoder.__all__
    assert names == ["__version__", *sorted(names[1:])]
    for name in names:
        assert getattr(pathencoder, name) is not None
    assert set(names) <= set(dir(pathencoder))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pathencoder.nothing


def test_what_a_type_checker_sees_is_what_there_is():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    checking = [n for n in tree.body if isinstance(n, ast.If)]
    seen = {alias.asname for block in checking for node in block.body for alias in node.names}
    assert seen == set(pathencoder.__all__) - {"__version__"}

"""The import rules of both trees, the cost of the first import, and the length of files."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest
from paths import ROOT

import pathencoder

PACKAGE = ROOT / "pathencoder"
LONGEST = 400

# A module may import from its own layer and from those before it. A folder stands for all that is
# in it. Only the package's __init__ and __main__ have no layer.
LAYERS = {
    "pathencoder": (
        (
            "_version",
            "bit_depth",
            "allocator",
            "cores",
            "memory",
            "errors",
            "redact",
            "seeds",
            "compat",
            "walk",
            "files",
            "geojson",
            "leases",
            "locks",
            "tables",
            "pooling",
            "spec",
            "state_dicts",
            "weights_digest",
            "text",
            "tracing",
            "pace",
            "mpp_claims",
            "mpp",
            "stain",
            "matching",
            "metrics",
            "gland_metrics",
            "point_metrics",
        ),
        ("formats", "arrays", "images", "views", "cluster"),
        (
            "transforms",
            "wrapped",
            "folded_convs",
            "folding",
            "network",
            "outputs",
            "runtime",
            "decoding",
            "stream",
        ),
        ("pretrained",),
        ("runtimes", "module", "encoder"),
        ("verify", "slides", "remote"),
        ("features", "nuclei"),
        ("heads",),
        ("pictures", "integrations"),
        ("explore",),
        ("cli", "__main__"),
    ),
    "training": (
        ("bounds", "files", "schedules", "distributed"),
        ("data",),
        ("augment", "archive"),
        ("methods",),
        ("config",),
        ("backbones",),
        ("provenance",),
        ("monitor", "from_config"),
        ("trainer", "report", "evaluation"),
        ("publishing", "publish", "evaluate", "export"),
        ("experiments", "pretrain", "plan"),
    ),
}
FILES = sorted(file for tree in LAYERS for file in (ROOT / tree).rglob("*.py"))


def name_of(file):
    """A file's module: pathencoder/slides/mpp.py is pathencoder.slides.mpp."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in FILES}


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


@cache
def imports_of(file):
    return frozenset(imported(ast.parse(file.read_text(encoding="utf-8"))))


def layer(module):
    """(tree, layer) of one of our modules; None for others, and for a tree's own __init__."""
    tree, *rest = module.split(".")
    if tree not in LAYERS or module not in MODULES or not rest:
        return None
    found = [i for i, names in enumerate(LAYERS[tree]) if rest[0] in names]
    assert found, f"{module} belongs to no layer: give {rest[0]} one in LAYERS"
    return tree, found[0]


def relative(file):
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=relative)
def test_the_package_never_imports_training(file):
    assert not {m for m in imports_of(file) if m.split(".")[0] in ("training", "tests")}


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_imports_come_from_the_same_or_a_lower_layer(file):
    here = layer(name_of(file))
    if here is None:
        return
    theirs = {m: layer(m) for m in imports_of(file)}
    assert not {m for m, there in theirs.items() if there and there[0] == here[0] and there > here}


@pytest.mark.parametrize("tree", LAYERS)
def test_there_are_no_import_cycles(tree):
    within = {m: file for m, file in MODULES.items() if m.startswith(f"{tree}.")}
    graph = {
        m: {i for i in imports_of(file) if i in within and i != m} for m, file in within.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=relative)
def test_timm_comes_only_through_compat(file):
    if file.name == "compat.py":
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {m.split(".")[0] for m in imported(tree)}
    if found & {"timm", "torchvision"}:
        assert "compat.import_timm()" in file.read_text(encoding="utf-8")
        top = {
            m.split(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for m in imported(ast.Module([node], []))
        }
        assert not top & {"timm", "torchvision"}


def test_files_stay_short():
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    assert {
        str(f): n for f in files if (n := f.read_text(encoding="utf-8").count("\n")) > LONGEST
    } == {}


def loaded_by(code):
    """The top-level modules that a fresh interpreter holds after running `code`."""
    listing = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\n{code}\nprint(*{{m.split('.')[0] for m in sys.modules}})",
        ],
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


def test_type_checkers_see_the_same_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    checking = [n for n in tree.body if isinstance(n, ast.If)]
    seen = {alias.asname for block in checking for node in block.body for alias in node.names}
    assert seen == set(pathencoder.__all__) - {"__version__"}

"""Documentation and code agree: pages of errors, navigation, files and commands named in text."""

import re

import pytest
from paths import ROOT

from pathencoder import errors

DOCS = ROOT / "docs"
ERRORS = sorted(
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.PathEncoderError)
)


@pytest.mark.parametrize("name", [n for n in ERRORS if n != "PathEncoderError"])
def test_every_error_has_a_page(name):
    assert (DOCS / "errors" / f"{name}.md").is_file()
    assert f"[{name}]({name}.md)" in (DOCS / "errors/index.md").read_text()


def test_pages_are_of_errors_that_exist():
    assert {p.stem for p in (DOCS / "errors").glob("*.md")} - {"index"} <= set(ERRORS)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert page.relative_to(DOCS).as_posix() in navigation, page


TEXTS = [
    file
    for pattern in ("*.md", "Makefile", ".github/**/*.yml", "docs/**/*.md", "model_cards/**/*.md")
    for file in ROOT.glob(pattern)
] + [
    file
    for tree in ("pathencoder", "training", "tests")
    for suffix in ("md", "py", "yaml")
    for file in (ROOT / tree).rglob(f"*.{suffix}")
]
# NAME and the like stand for any name
FILE = re.compile(
    r"\b(?:pathencoder|training|tests|docs|scripts|notebooks|model_cards)/(?![\w./-]*[A-Z]{4})"
    r"[\w./-]*\w\.(?:py|md|yaml|toml|ipynb|sbatch|csv)\b"
)
GENERATED = ("docs/cli.md", "docs/pretraining-settings.md")  # by scripts/docs_*.py, `make docs`
MODULE = re.compile(r"python -m ((?:pathencoder|training|tests)[.a-z_]*[a-z_])")


def words(file):
    return file.read_text(encoding="utf-8")


def test_files_named_in_text_exist():
    named = {(str(t.relative_to(ROOT)), n) for t in TEXTS for n in FILE.findall(words(t))}
    named -= {(text, name) for text, name in named if name in GENERATED}
    assert len(named) > 50
    assert [(text, name) for text, name in sorted(named) if not (ROOT / name).exists()] == []


def test_modules_named_as_commands_exist():
    named = {n for t in TEXTS for n in MODULE.findall(words(t))}
    assert len(named) > 10
    files = {n: ROOT / n.replace(".", "/") for n in named}
    missing = [
        name
        for name, file in sorted(files.items())
        if not file.with_suffix(".py").exists() and not file.is_dir()
    ]
    assert missing == []

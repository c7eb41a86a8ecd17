"""The documentation is complete: every error has a page, every page is in the navigation."""

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

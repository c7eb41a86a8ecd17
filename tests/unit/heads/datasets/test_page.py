"""The documentation's page describes the sets as the code does."""

from paths import ROOT

from scripts.docs_datasets import page


def test_the_page_is_that_of_the_descriptions():
    text = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    assert page(text) == text, "python scripts/docs_datasets.py docs/datasets.md"

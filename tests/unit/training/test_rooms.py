"""The folders of training/: few modules at the top, the rest in the known packages."""

from paths import ROOT

TRAINING = ROOT / "training"
PACKAGES = {
    "archive",
    "backbones",
    "config",
    "data",
    "evaluation",
    "methods",
    "monitor",
    "provenance",
    "publishing",
    "trainer",
}


def test_the_top_of_training_is_short():
    top = {p.stem for p in TRAINING.glob("*.py")} - {"__init__"}
    assert len(top) <= 13, sorted(top)


def test_the_packages_are_the_known_ones():
    packages = {p.parent.name for p in TRAINING.glob("*/__init__.py")}
    assert packages == PACKAGES

"""The rooms of training/: few modules at the top, every module in a room that exists."""

from paths import ROOT

TRAINING = ROOT / "training"
ROOMS = {"backbones", "data", "evaluation", "methods", "monitor", "publishing", "trainer"}


def test_the_top_of_training_is_short():
    top = {p.stem for p in TRAINING.glob("*.py")} - {"__init__"}
    assert len(top) <= 12, sorted(top)


def test_rooms_are_packages():
    packages = {p.parent.name for p in TRAINING.glob("*/__init__.py")}
    assert packages == ROOMS

"""Folders: the repository, the tests' data, and shared data that a machine may lack."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data"
SHARED = ROOT.parent / "shared"

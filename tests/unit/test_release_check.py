"""The parts of `make release-check` that need no build."""

import pytest
from paths import ROOT

from pathencoder._version import __version__
from scripts import release_check as checks

ENCODERS = ["mine"]
GOOD = {
    **dict.fromkeys(checks.NEEDED, 10),
    **{f"pathencoder/weights/mine/{name}": 10 for name in checks.ENCODER_FILES},
    "pathencoder-1.0.dist-info/licenses/LICENSE": 10,
    "pathencoder-1.0.dist-info/licenses/pathencoder/weights/mine/LICENSE": 10,
}


def test_a_complete_wheel_has_no_fault():
    assert checks.wheel_faults(GOOD, ENCODERS) == []


@pytest.mark.parametrize("name", sorted(GOOD))
def test_each_missing_file_is_named(name):
    rest = {other: size for other, size in GOOD.items() if other != name}
    assert len(checks.wheel_faults(rest, ENCODERS)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "tests/unit/test_NAME.py",
        "training/plan.py",
        "pathencoder/tests/test_NAME.py",
        "pathencoder/__pycache__/NAME.pyc",
        "pathencoder/slide.svs",
        "model_cards/NAME/log.csv",
        "notebooks/NAME.ipynb",
    ],
)
def test_what_does_not_belong_there(name):
    assert checks.wheel_faults({**GOOD, name: 1}, ENCODERS) == [f"the wheel holds {name}"]
    whole = {*GOOD, "pyproject.toml", "README.md", "LICENSE", "PKG-INFO"}
    assert checks.sdist_faults(whole) == []
    assert checks.sdist_faults({*whole, name}) == [f"the sdist holds {name}"]


def test_sizes():
    big = {"pathencoder/weights/pathencoder-tiny/model.safetensors": 60_000_000}
    assert checks.size_faults(big, 1) == ["the folder of pathencoder-tiny: 60.0 MB, at most 50 MB"]
    more = {**big, "pathencoder/weights/mine/model.safetensors": 40_000_000}
    assert len(checks.size_faults(more, 120_000_000)) == 3


def test_paths_of_a_machine():
    texts = {
        "a.py": "open('/home/anna/x')",
        "b.json": '"/Users/ben/x"',
        "c.md": "load_encoder('/data/models/mine'); a/work/b",
    }
    assert checks.private_paths(texts) == ["a.py names /home/anna", "b.json names /Users/ben"]


def test_versions_are_stated_where_they_are_read():
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff")]
    assert checks.version_faults(__version__, *texts) == []
    assert len(checks.version_faults("9.9.9", *texts)) == 2


def test_commands_of_a_readme():
    text = """
    pip install x          # comment
    tool run tiles/ --out out  # another

```python
    not = "a command"
```

```bash
tool fetch uni
tool list
```
"""
    found = {command.line: command.skipped for command in checks.readme_commands(text)}
    assert found == {
        "pip install x": "installs",
        "tool run tiles/ --out out": "",
        "tool fetch uni": "needs a network",
        "tool list": "",
    }


def test_some_commands_of_the_readme_are_run():
    commands = checks.readme_commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len([c for c in commands if not c.skipped]) >= 4


def test_needs_leave_out_extras():
    metadata = """Name: x
Requires-Dist: torch>=2.4
Requires-Dist: tifffile>=2024.1; extra == "wsi"
Requires-Dist: numpy>=1.26
"""
    assert checks.needs(metadata) == ["torch>=2.4", "numpy>=1.26"]

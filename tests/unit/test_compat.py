"""timm and encoders are loaded without torch's compiler, which still works when it is used."""

import subprocess
import sys

import pytest

from pathencoder import compat

HEAD = "import sys; from pathencoder import compat; timm = compat.import_timm(); import torch; "
LOADED = "assert not {'torch._dynamo', 'torch._dynamo.utils', 'sympy'} & set(sys.modules); "


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_compiler_is_not_imported_with_an_encoder():
    run("import pathencoder; pathencoder.load_encoder(device='cpu'); " + LOADED)


def test_the_compiler_is_not_imported_with_timm():
    run(LOADED + "assert torch.compiler.disable.__module__ == 'torch.compiler'")


def test_it_is_imported_when_it_is_used():
    compiled = run(
        LOADED
        + "f = torch.compile(lambda x: x + 1, backend='eager'); print(f(torch.ones(2)).tolist());"
        " from torchvision.ops import roi_align; from torch._dynamo.utils import counters;"
        " from torchvision.ops.roi_align import is_compile_supported as a;"
        " print(a('cpu') == sys.modules['torch._dynamo.utils'].is_compile_supported('cpu'))"
    )
    assert compiled.splitlines() == ["[2.0, 2.0]", "True"]


@pytest.mark.parametrize("imported", [False, True])
def test_a_function_that_is_not_to_be_compiled(monkeypatch, imported):
    asked = []

    def disable(function, recursive=True):
        asked.append(recursive)
        return function

    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    if imported:
        monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    put_off = compat._put_off(disable)
    assert put_off(abs)(-2) == 2
    assert put_off(recursive=False)(abs)(-3) == 3
    assert asked == ([True, False] if imported else [])


def test_another_name_of_the_compiler_gives_the_real_module():
    code = (
        "import types; m = compat._Utils('torch._dynamo.utils');"
        " sys.modules['torch._dynamo.utils'] = m; from torch._dynamo.utils import counters;"
        " assert sys.modules['torch._dynamo.utils'] is not m; import torch._dynamo as d;"
        " assert d.utils is sys.modules['torch._dynamo.utils']"
    )
    run(code)

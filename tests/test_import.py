"""What `import mdsample` brings along, what it costs, and what it exports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mdsample

ROOT = Path(mdsample.__file__).parent


def fresh(code: str) -> str:
    """Output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_loads_no_framework_and_no_terminal_library() -> None:
    heavy = {"torch", "mlx", "jax", "transformers", "typer", "click", "rich", "matplotlib", "tokenizers"}
    heavy |= {"huggingface_hub", "safetensors", "jinja2", "hypothesis", "pytest"}
    loaded = fresh("import sys, mdsample; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert not heavy & set(loaded)


def test_a_record_names_the_frameworks_that_are_loaded_and_loads_none() -> None:
    tell = "from mdsample._version import versions; print(*versions())"
    assert fresh(tell).split() == ["mdsample", "numpy"]
    stand_in = "import sys, types; sys.modules['torch'] = types.SimpleNamespace(__version__='9.9'); "
    assert fresh(stand_in + tell + "; print(versions()['torch'])").split() == ["mdsample", "numpy", "torch", "9.9"]


def test_importing_is_quick() -> None:
    code = (
        "import time\n"
        "began = time.process_time()\n"  # the processor's own time, and beside another import: machines differ
        "import numpy\n"
        "between = time.process_time()\n"
        "import mdsample\n"
        "print((time.process_time() - between) / (between - began))"
    )
    # 1.5 to 4.5 on Python 3.11 to 3.14: mostly what attrs compiles, beside a NumPy that starts no threads
    assert min(float(fresh(code)) for _ in range(3)) < 6, "mdsample takes more than six times as long as NumPy"


def test_all_names_are_exported_once_the_front_door_first() -> None:
    exported = mdsample.__all__
    assert len(exported) == len(set(exported))
    assert exported[:4] == ["load", "sample", "stream", "watch"]
    bound = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mdsample")
        for alias in node.names
    }
    assert bound == set(exported)
    assert "mdsample.exact" not in fresh("import mdsample, sys; print(sorted(sys.modules))")
    assert all(hasattr(mdsample, name) for name in exported)


def test_the_core_imports_nothing_from_the_outer_rooms() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] in {"mdsample_cli", "mdsample_torch", "mdsample_mlx"} for n in names), path


def test_every_part_is_public() -> None:
    from mdsample.policy.catalog import PARTS

    assert {part.__name__ for part in PARTS.values()} <= set(mdsample.__all__)

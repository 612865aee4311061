"""How long `import mdsample` and the command take to start, beside `import numpy`.

    python benchmarks/start.py [--repeats 9]

Each is the processor time of a fresh process, with bytecode that a run before has left; the sides take turns. The
second table is of processes that find no bytecode, as in a folder that cannot be written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial

import numpy as np
from common import bootstrap, command_line, print_head, print_row, timed

SIDES = {
    "import numpy": ("-c", "import numpy"),
    "import mdsample": ("-c", "import mdsample"),
    "mdsample --version": ("-m", "mdsample_cli", "--version"),
    "mdsample --help": ("-m", "mdsample_cli", "--help"),
    "mdsample explain med": ("-m", "mdsample_cli", "explain", "med"),
}


def children() -> float:
    """Processor time of all children that have ended, seconds."""
    spent = os.times()
    return spent.children_user + spent.children_system


def main() -> None:
    """Prints both tables."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats: int = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        for title, change in {
            "with bytecode": {"PYTHONPYCACHEPREFIX": folder},
            "without": {"PYTHONPYCACHEPREFIX": f"{folder}/none", "PYTHONDONTWRITEBYTECODE": "1"},
        }.items():
            kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
            start = partial(subprocess.run, check=True, capture_output=True, env=kept | change)
            took = timed(
                {name: partial(start, [sys.executable, *line]) for name, line in SIDES.items()}, repeats, clock=children
            )
            print_head((title, "ms", "of import numpy", "95 %"))
            for name, seconds in took.items():
                of = bootstrap(seconds / took["import numpy"], np.median)
                shown = f"{of.value:.2f}", f"[{of.low:.2f}, {of.high:.2f}]"
                print_row([name, f"{1000 * np.median(seconds):.0f}", *shown])
            print()


if __name__ == "__main__":
    main()

"""`python -m mdsample_cli`: the command, where there is no console script, as under `accelerate launch --module`."""

import sys

from mdsample_cli.main import main

if __name__ == "__main__":
    sys.exit(main())

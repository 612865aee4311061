"""`python -m mdsample_cli`: for `accelerate launch --module`, which takes no console script."""

import sys

from mdsample_cli.main import main

if __name__ == "__main__":
    sys.exit(main())

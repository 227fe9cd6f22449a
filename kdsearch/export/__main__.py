"""`python -m kdsearch.export RUN`: the door to `kdsearch export`."""

import sys

from kdsearch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))

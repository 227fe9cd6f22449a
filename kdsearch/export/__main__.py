"""`python -m kdsearch.export RUN` is `kdsearch export RUN`."""

import sys

from kdsearch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))

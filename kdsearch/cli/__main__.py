# PYTHON_ARGCOMPLETE_OK
"""`python -m kdsearch.cli`: the door to `kdsearch`."""

import sys

from kdsearch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

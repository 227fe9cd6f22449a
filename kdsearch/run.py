"""`python -m kdsearch.run SPACE`: the door to `kdsearch run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """`kdsearch run` with these arguments, by default those of the process; returns the exit status."""
    from kdsearch.cli.main import main

    return main(["run", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())

"""A module of the package as a process of its own, with a pipe between both.

`multiprocessing` would import the main module of the user's program in the new process, and a script without
`if __name__ == "__main__"` would start from its first line again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe


def start_module(module: str) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start `python -m module HANDLE`, where HANDLE is the file descriptor of its end of the pipe; returns the other.

    The process imports from the same places as this one. It is in a session of its own: Ctrl-C is for the driver, which
    has to end it.
    """
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
    return process, ours

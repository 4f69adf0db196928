"""Becomes a command that is told to stop when the process that started it dies.

    python -I launch.py PARENT COMMAND...

A killed runner cannot tell its runs anything; the kernel then sends them SIGTERM, and they save.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2); it outlives an exec

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # it died before
        sys.exit(130)
    os.execv(sys.argv[2], sys.argv[2:])

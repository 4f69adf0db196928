"""Becomes a command that is told to stop when the process that started it dies.

    python -I launch.py PARENT COMMAND...

A killed runner cannot tell its runs anything; the kernel then sends them SIGTERM, and they save.
SIGUSR2, by which a cluster tells every process of a job, is for that which started the command.
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
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # outlives an exec too
    os.execv(sys.argv[2], sys.argv[2:])

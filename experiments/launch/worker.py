"""One run of a queue, in a process that does not outlive the queue: the end of its standard input is a SIGTERM.

A queue that is killed takes nothing with it by itself. What it leaves would go on unseen, and hold the folders that the
same command needs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from experiments import main


def watch() -> None:
    """Until standard input ends; it holds nothing."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True, name="leash").start()
    sys.argv[0] = "forethought"  # for the record
    sys.exit(main.main())

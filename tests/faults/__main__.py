"""The attack suite.

    python -m tests.faults [--seconds S | --rounds N] [--seed S] [--only NAME ...]

runs the attacks one after another, each in a process of its own, and prints one table of what they counted. The exit
status is 1 if anything was wrong, lost, served, a traceback or outside.
"""

import sys

from tests.faults.suite import main

if __name__ == "__main__":  # not in the processes of the attacks
    sys.exit(main())

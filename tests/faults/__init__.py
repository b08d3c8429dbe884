"""Attacks on stores, workdirs and parsers, and what they count: `python -m tests.faults`."""

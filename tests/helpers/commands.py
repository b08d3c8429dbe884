"""The command line in this process: what a command prints and its exit status."""

import json

from s3t.cli import main


def run(capsys, *words):
    """(status, object on standard output or None, standard error)."""
    try:
        status = main([*map(str, words), "--json"])
    except SystemExit as left:
        status = left.code
    out, err = capsys.readouterr()
    assert out.count("\n") == (1 if out else 0) and err.count("\n") == (1 if err else 0), (out, err)
    return status, json.loads(out) if out else None, err

"""The structure of the source, counted: `python -m tools.structure [--rev REV]`, the second beside a git revision.

A folder is one that holds Python files. Folder A -> folder B is an edge if a file of A imports one of B. A function takes
a whole config if a parameter has the type of one (`WHOLE`), or is called `config` and has no other type; a runner's `run`,
the configs themselves and what validates and resolves them may. Standard library only.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PURE = ("unlearn", "readiness", "s3t", "federated")
LISTED = {"jax", "optax", "numpy", "scipy", *PURE}
ALSO = {"unlearn/metrics": {"sklearn"}, "s3t": {"safetensors"}}  # folder -> what else it may import
WHOLE = {"Config", "ConfigDict", "Bench", "Comparison", "Judge", "Judged", "JudgeExact", "S3TStudy", "Exact"}
UNTYPED = {"Any", "Mapping", "dict", "str"}  # what may as well be a whole config if it is called one
MAY = ("run", "resolved")  # functions
RESOLVING = ("experiments/configs/", "experiments/core/config.py", "experiments/main.py", "experiments/command_line.py")
LONG_FILE, LONG_FUNCTION, SHOWN = 350, 60, 5

Tree = Mapping[str, str]  # path of a Python file, with "/" -> its text
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Structure(NamedTuple):
    """What is counted of a tree; places are "path" or "path:function"."""

    numbers: dict[str, int]
    longest_files: list[tuple[int, str]]
    longest_functions: list[tuple[int, str]]
    takes_config: list[str]
    unlisted: list[str]


def read_folder(root: Path) -> dict[str, str]:
    """The Python files below a folder, hidden folders and builds left out."""
    files = {}
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        if not any(part.startswith(".") or part in ("build", "dist") for part in path.parts):
            files[path.as_posix()] = file.read_text("utf-8")
    return files


def read_revision(root: Path, revision: str) -> dict[str, str]:
    """The Python files of a git revision; the working tree is not touched.

    Raises:
      ValueError: git knows no such revision.
    """
    command = ["git", "-C", str(root), "archive", "--format=tar", revision]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode:
        raise ValueError(made.stderr.decode().strip().splitlines()[-1])
    files = {}
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".py") and (file := archive.extractfile(member)):
                files[member.name] = file.read().decode("utf-8")
    return files


def measure(tree: Tree) -> Structure:
    """Count a tree."""
    source = {path: text for path, text in tree.items() if not path.startswith(("tests/", "tools/"))}
    parsed = {path: ast.parse(text) for path, text in source.items()}
    arrows = {(path, to) for path, module in parsed.items() for to in imported_files(module, source) if to != path}
    between = {(folder(a), folder(b)) for a, b in arrows if folder(a) != folder(b)}
    sizes = {path: len(text.splitlines()) for path, text in source.items()}
    lengths = {
        f"{path}:{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path, module in parsed.items()
        for function in functions(module)
    }
    takes_config = [
        f"{path}:{function.name}"
        for path in sorted(parsed)
        for function in functions(parsed[path])
        if takes_whole_config(function) and function.name not in MAY and not path.startswith(RESOLVING)
    ]
    unlisted = [f"{path}: {name}" for path in sorted(parsed) for name in sorted(unlisted_imports(path, parsed[path]))]
    in_folder = Counter(map(folder, source))
    numbers = {
        "packages": len({path.split("/")[0] for path in source}),
        "folders": len(in_folder),
        "files": len(source),
        "lines": sum(sizes.values()),
        "test files": sum(path.startswith("tests/") for path in tree),
        "test lines": sum(len(text.splitlines()) for path, text in tree.items() if path.startswith("tests/")),
        "most files in a folder": max(in_folder.values(), default=0),
        f"files over {LONG_FILE} lines": sum(size > LONG_FILE for size in sizes.values()),
        f"functions over {LONG_FUNCTION} lines": sum(length > LONG_FUNCTION for length in lengths.values()),
        "edges between files": len(arrows),
        "edges between folders": len(between),
        "folders that import each other": sum((b, a) in between for a, b in between) // 2,
        "functions that take a whole config": len(takes_config),
        "imports of pure rooms outside the list": len(unlisted),
    }
    return Structure(numbers, longest(sizes), longest(lengths), takes_config, unlisted)


def folder(path: str) -> str:
    """The folder of a file."""
    return PurePosixPath(path).parent.as_posix()


def functions(module: ast.Module) -> Iterator[Function]:
    """All functions of a file, methods and inner ones among them."""
    return (node for node in ast.walk(module) if isinstance(node, Function))


def imported_files(module: ast.Module, tree: Tree) -> Iterator[str]:
    """The files of the tree that a file imports, wherever the import stands."""
    for name in imported_names(module):
        path = name.replace(".", "/")
        yield from (file for file in (f"{path}.py", f"{path}/__init__.py") if file in tree)


def imported_names(module: ast.Module) -> Iterator[str]:
    """Dotted names of what a file imports; `from a import b` gives "a.b", too, which may be a module."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def takes_whole_config(function: Function) -> bool:
    """Whether a parameter is a whole config, by its type, or by its name if the type does not tell."""
    arguments = function.args
    for parameter in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        types = set(names_in(parameter.annotation))
        if types & WHOLE or (parameter.arg == "config" and types <= UNTYPED):
            return True
    return False


def names_in(annotation: ast.expr | None) -> Iterator[str]:
    """Names in an annotation, without their modules."""
    for node in ast.walk(annotation) if annotation else ():
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def unlisted_imports(path: str, module: ast.Module) -> set[str]:
    """What a file of a pure room imports beyond the list and the standard library; of other rooms, nothing."""
    if path.split("/")[0] not in PURE:
        return set()
    also = set().union(*(names for place, names in ALSO.items() if path.startswith(f"{place}/")))
    return {name.split(".")[0] for name in imported_names(module)} - LISTED - also - sys.stdlib_module_names


def longest(lengths: Mapping[str, int]) -> list[tuple[int, str]]:
    """The few largest, with their length."""
    return sorted(((length, place) for place, length in lengths.items()), key=lambda pair: (-pair[0], pair[1]))[:SHOWN]


def _counted(pair: tuple[int, str]) -> str:
    return f"  {pair[0]:5}  {pair[1]}"


def text(columns: Mapping[str, Structure]) -> str:
    """Trees side by side, by name; then what is longest, and what stands where it should not, in the last of them."""
    lines = [f"{'':40}" + "".join(f"{name:>12}" for name in columns)]
    rows = next(iter(columns.values())).numbers
    lines += [f"{row:40}" + "".join(f"{column.numbers[row]:>12,}" for column in columns.values()) for row in rows]
    for name, column in columns.items():
        lines += ["", f"longest files, {name}", *map(_counted, column.longest_files)]
    for name, column in columns.items():
        lines += ["", f"longest functions, {name}", *map(_counted, column.longest_functions)]
    name, last = list(columns.items())[-1]
    counts = Counter(place.rpartition(":")[0] for place in last.takes_config)
    lines += ["", f"functions that take a whole config, {name}"]
    lines += [f"  {count:5}  {path}" for path, count in counts.most_common()] or ["  none"]
    lines += ["", f"imports of pure rooms outside the list, {name}", *(f"  {place}" for place in last.unlisted or ["none"])]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the structure of the checkout, beside that of a revision if one is given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rev", help="a git revision to stand beside the checkout")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="the checkout")
    args = parser.parse_args(argv)
    try:
        columns = {args.rev[:11]: measure(read_revision(args.root, args.rev))} if args.rev else {}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text({**columns, "now": measure(read_folder(args.root))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

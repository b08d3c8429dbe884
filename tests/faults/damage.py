"""Damage: flipped bits, cuts, holes of zeros, swapped and foreign files, in every file of a store.

It is noticed, or does no harm (`tests.faults.victims`).
"""

import os
import shutil

from s3t.store import disk
from tests.faults import odd, victims
from tests.helpers import builds

HEAL_EVERY = 12  # training takes longer than all else


def attack(room, rng, limit, tally):
    """One file or two altered, then every command."""
    victims.prepare()
    victim = victims.make(room.folder)
    other = room.folder / "other"
    disk.close(builds.create(other))
    for number in limit:
        template = victim.ahead if rng.random() < 0.4 else victim.template
        root = room.fresh(template)
        what = f"{number}: "
        for _ in range(rng.choice([1, 1, 1, 2])):
            try:
                what += alter(rng, root, victim, other) + ", "
            except (OSError, IndexError) as error:  # of what the first alteration took away
                what += f"in vain ({error}), "
        victims.attacked(room, victim, tally, what + f"of {template.name}", rng, heal=number % HEAL_EVERY == HEAL_EVERY - 1)


def alter(rng, root, victim, other):
    """Alter something of a store; what it was."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    nodes = sorted((root / "nodes").glob("*"))
    how = rng.choice([bits] * 8 + [swap, foreign, put_back, older, lose, pages])
    return f"{how.__name__} {how(rng, root, files, nodes, victim, other)}"


def bits(rng, root, files, nodes, victim, other):
    """The bytes of any file."""
    ledgers = [path for path in files if path.name.startswith(disk.LEDGER)]
    path = rng.choice(ledgers if rng.random() < 0.5 else files)
    path.write_bytes(odd.altered_bytes(rng, path.read_bytes(), rng.choice(files).read_bytes()))
    return path.name


def pages(rng, root, files, nodes, victim, other):
    """Whole pages of the ledger swapped or gone, as a disk loses them."""
    path = root / disk.LEDGER
    data = path.read_bytes()
    parts = [data[at : at + 4096] for at in range(0, len(data), 4096)] or [b""]
    one, two = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts[one], parts[two] = (parts[two], parts[one]) if rng.random() < 0.5 else (bytes(4096), parts[two])
    path.write_bytes(b"".join(parts))
    return f"{one} {two}"


def swap(rng, root, files, nodes, victim, other):
    """Two files in each other's place."""
    one, two = rng.choice(nodes or files), rng.choice(nodes or files)
    between = one.with_name("between")
    os.replace(one, between)
    if one != two:
        os.replace(two, one)
    os.replace(between, two)
    return f"{one.name} {two.name}"


def foreign(rng, root, files, nodes, victim, other):
    """Another store's file in the place of one."""
    theirs = sorted(path for path in [*other.rglob("*"), *victim.before.rglob("*")] if path.is_file())
    path = rng.choice(files)
    same = [one for one in theirs if one.suffix == path.suffix] or theirs
    shutil.copy(rng.choice(same), path)
    return path.name


def put_back(rng, root, files, nodes, victim, other):
    """The file of a dropped node, under its name or another's."""
    kept = sorted(path for path in (victim.before / "nodes").iterdir() if path.stem in victim.dropped)
    source = rng.choice(kept)
    target = rng.choice([source.name, *(path.name for path in nodes)])
    shutil.copy(source, root / "nodes" / target)
    return f"{source.stem[:8]} as {target[:8]}"


def older(rng, root, files, nodes, victim, other):
    """The ledger from before the deletions, with the nodes of then."""
    for path in root.glob(f"{disk.LEDGER}*"):
        path.unlink()
    shutil.copy(victim.before / disk.LEDGER, root)
    if rng.random() < 0.7:
        shutil.copytree(victim.before / "nodes", root / "nodes", dirs_exist_ok=True)
    return "ledger"


def lose(rng, root, files, nodes, victim, other):
    """A file, or the directory of the nodes."""
    path = rng.choice([*files, root / "nodes"])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path.name

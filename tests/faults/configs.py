"""Configs: every field of every config set to absurd values, as overrides and as whole sections.

A config is taken, or refused by one line for each mistake that names the key; nothing is trained here and nothing is made.
"""

import json
import os

from absl import flags

from experiments import command_line
from experiments.configs import comparison, federated, judge, judge_exact, pretrain, s3t
from experiments.core import config, files
from experiments.core.errors import UserError
from tests.faults import odd, victims

RUNS = {
    "readiness": comparison.Comparison,
    "judge": judge.Judge,
    "judge_exact": judge_exact.JudgeExact,
    "s3t": s3t.S3TStudy,
    "pretrain": pretrain.Pretrain,
    "federated": federated.Federated,
}
PER_ROUND = 8  # overrides are typed once in so many tries: flags are slow


def attack(room, rng, limit, tally):
    """Alter the values of a config, or type an override."""
    victims.prepare()
    os.chdir(room.beside)
    before = room.surroundings()
    values = {name: files.plain(config.dumped(run())) for name, run in RUNS.items()}
    for number in limit:
        for at in range(PER_ROUND):
            name = rng.choice(list(RUNS))
            with tally.trial(f"{name} {number}.{at}", UserError):
                altered = as_tuples(odd.altered_value(rng, values[name]))
                try:
                    config.validated(RUNS[name], altered)
                except UserError as error:
                    check_lines(error, tally, f"{name} {number}.{at}")
                    raise
        typed = override(rng, rng.choice(["readiness:digits", "judge:digits", "s3t:digits", "pretrain:digits"]))
        with tally.trial(f"{typed} {number}", UserError):
            command_line.parse(["forethought", *typed], flags.FlagValues())
    if room.surroundings() != before:
        tally.bad("outside", "a config left something behind")


def check_lines(error, tally, what):
    """Each mistake is one line."""
    for mistake in getattr(error, "mistakes", (str(error),)):
        if "\n" in mistake.strip():
            tally.bad("wrong", f"{what}: {mistake!r:.600}")


def as_tuples(value):
    """Lists as tuples, as configs have them."""
    if isinstance(value, dict):
        return {name: as_tuples(entry) for name, entry in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def override(rng, name):
    """The words of a command line with a bad override."""
    keys = [config.key(loc) for loc, _ in config.fields(RUNS[name.partition(":")[0]])]
    key = rng.choice(keys) if rng.random() < 0.8 else odd.altered_text(rng, rng.choice(keys))
    value = rng.choice(odd.ODD)
    text = value if isinstance(value, str) else rng.choice([repr(value), json.dumps(value)])
    return [f"--config={name}", f"--config.{key}={text}", "--workdir=nowhere"]

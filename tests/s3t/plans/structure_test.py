"""Plans: what they hold, cost, and keep after deletions; the `plan` command; the picture."""

import itertools
import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from experiments.exact.pages import plan_figure
from s3t.cli import main
from s3t.plans import structure
from s3t.plans.planners import PLANNERS, cyclic, full, lattice, sisa, stumps
from s3t.plans.structure import make_plan

SMALL = [
    make_plan(1, [(0,)]),
    make_plan(3, [(1, 2)]),  # never full depth
    make_plan(4, [(2, 0, 3), (2, 1), (0, 3, 1, 2)]),
    sisa(4),
    stumps(5),
    cyclic(4, 2),
    cyclic(4, 8),
    lattice(4),
]


def deletion_sets(slices):
    return [set(x) for size in range(slices + 1) for x in itertools.combinations(range(slices), size)]


def slow_depth(plan, gone):
    return max((len(node) for node in plan.nodes if not gone & set(node)), default=0)


# what a plan holds


def test_a_plan_holds_prefixes_once_parents_first():
    plan = make_plan(4, [(2, 0, 3), (2, 1), [np.int64(0)], (2, 0)])
    assert plan.nodes == ((0,), (2,), (2, 0), (2, 1), (2, 0, 3))
    assert structure.sequences(plan) == ((0,), (2, 1), (2, 0, 3))
    assert [structure.at_depth(plan, d) for d in (2, 4)] == [((2, 0), (2, 1)), ()]
    assert structure.parent((2, 0, 3)) == (2, 0) and structure.parent((2,)) == ()


def test_a_plan_is_the_set_whatever_the_order_and_can_be_a_key():
    a, b = make_plan(3, [(0, 1), (2,)]), make_plan(3, iter([(2,), (0,), (0, 1)]))
    assert a == b and len({a, b, make_plan(4, [(0, 1), (2,)])}) == 2
    assert make_plan(3, a.nodes) == a == make_plan(3, structure.sequences(a))


@pytest.mark.parametrize("bad", [(0, 0), (3,), (-1,), ()])
def test_a_malformed_sequence_is_refused(bad):
    with pytest.raises(ValueError, match="distinct slices from 0 to 2"):
        make_plan(3, [(1,), bad])


def test_a_plan_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one sequence"):
        make_plan(3, [])


# cost

SEQUENCE = {4: (4.375, 3.75), 5: (5.2, 4.4), 6: (217 / 36, 91 / 18)}


@pytest.mark.parametrize("slices", SEQUENCE)
def test_one_sequence_costs_the_sum_over_its_stages(slices):
    plain, cached = SEQUENCE[slices]
    assert structure.flops(sisa(slices)) == pytest.approx(plain, rel=1e-12)
    assert structure.flops(sisa(slices), cached=True) == pytest.approx(cached, rel=1e-12)
    assert structure.flops(cyclic(slices, slices)) == pytest.approx(slices * plain, rel=1e-12)


def test_costs_by_hand():
    assert structure.node_flops((3,), 4) == 1 / 4 * (
        1 + 1 / 4
    )  # a quarter of the data: all blocks forward, the top one back
    assert structure.node_flops((3,), 4, cached=True) == 1 / 4 * (1 / 4 + 1 / 4)
    assert structure.node_flops((0, 1, 2, 3), 4) == structure.node_flops((0, 1, 2, 3), 4, cached=True) == 2  # nothing below
    assert structure.node_flops((1, 0), 3, sizes=(0.5, 0.2, 0.3)) == pytest.approx(0.7 * (1 + 2 / 3))
    assert structure.flops(make_plan(2, [(0, 1)]), (0.75, 0.25), cached=True) == 0.75 * 1 + 1 * 2


def test_lattice_keeps_full_depth_at_a_fraction_of_the_rotations_cost():
    assert (structure.flops(lattice(4)), structure.flops(lattice(4), cached=True)) == (13, 10)
    assert (structure.flops(cyclic(4, 4)), structure.flops(cyclic(4, 4), cached=True)) == (17.5, 15)
    assert structure.flops(lattice(4), cached=True) / structure.flops(cyclic(4, 4)) == 4 / 7 <= 0.60
    assert structure.flops(lattice(4), cached=True) / structure.flops(cyclic(4, 4), cached=True) == 2 / 3 <= 0.68
    for gone in deletion_sets(4):
        assert structure.depth_served(lattice(4), gone) == 4 - len(gone)


@pytest.mark.parametrize(
    "slices, plain, cached", [(4, 85 / 280, 33 / 120), (5, 6.16 / 26, 4.72 / 22), (6, 42 / 217, 96 / 546)]
)
def test_stumps_cost_a_third_of_the_rotations_that_survive_as_long(slices, plain, cached):
    ratio = structure.flops(stumps(slices)) / structure.flops(cyclic(slices, slices))
    ratio_cached = structure.flops(stumps(slices), cached=True) / structure.flops(cyclic(slices, slices), cached=True)
    assert (ratio, ratio_cached) == (pytest.approx(plain, rel=1e-12), pytest.approx(cached, rel=1e-12))
    assert max(ratio, ratio_cached) <= 0.35


def test_every_node_stores_one_slot_and_one_head():
    assert structure.storage_bytes(lattice(4), 100, 7) == 15 * 107
    assert structure.storage_bytes(sisa(4), 100) == 400


# deletion


@pytest.mark.parametrize("plan", SMALL)
def test_survivors_and_depths_after_every_deletion_set(plan):
    table = structure.depth_table(plan)
    for gone in deletion_sets(plan.slices):
        alive = structure.survivors(plan, gone)
        assert alive == tuple(node for node in plan.nodes if not any(s in gone for s in node))
        assert all(structure.parent(node) in (*alive, ()) for node in alive)
        deepest = structure.served(plan, iter(gone))
        assert (
            len(deepest) == structure.depth_served(plan, gone) == slow_depth(plan, gone) == table[structure.mask_of(gone)]
        )
        assert deepest == next((node for node in alive if len(node) == len(deepest)), ())


@pytest.mark.parametrize("plan", SMALL)
def test_expected_depths_are_means_over_sets(plan):
    for j, depth in enumerate(structure.expected_depths(plan)):
        values = [slow_depth(plan, gone) for gone in deletion_sets(plan.slices) if len(gone) == j]
        assert depth == float(Fraction(sum(values), len(values)))


@pytest.mark.parametrize(
    "plan, expected",
    [
        (sisa(4), (4, 3 / 2, 2 / 3, 1 / 4, 0)),
        (cyclic(4, 4), (4, 3, 5 / 3, 1, 0)),
        (cyclic(8, 8), (8, 7, 4.71, 3.43, 2.54)),
        (lattice(8), (8, 7, 6, 5, 4)),
    ],
    ids=["sisa", "cyclic4", "cyclic8", "lattice"],
)
def test_expected_depths_of_the_reference(plan, expected):
    assert structure.expected_depths(plan)[: len(expected)] == pytest.approx(expected, abs=0.005)


def slow_expected_depths(plan, prior):
    """Over all orders in which the slices can be hit for the first time."""
    totals = [Fraction(0)] * (plan.slices + 1)
    for order in itertools.permutations(range(plan.slices)):
        chance, rest = Fraction(1), Fraction(1)
        for s in order:
            chance, rest = chance * prior[s] / rest, rest - prior[s]
        for j in range(plan.slices + 1):
            totals[j] += chance * slow_depth(plan, set(order[:j]))
    return [float(total) for total in totals]


@pytest.mark.parametrize("plan", [plan for plan in SMALL if plan.slices == 4])
def test_expected_depths_under_a_prior(plan):
    prior = [Fraction(n, 1000) for n in (989, 1, 3, 7)]
    expected = slow_expected_depths(plan, prior)
    assert structure.expected_depths(plan, [float(p) for p in prior]) == pytest.approx(expected, rel=1e-12)


def test_expected_depths_under_a_prior_by_hand():
    assert structure.expected_depths(sisa(2), [0.75, 0.25]) == (2, 0.25, 0)
    assert structure.expected_depths(sisa(2), [0, 1]) == (2, 1, 0)
    # Slices 1 and 2 are never hit while 0 is left: after it either comes next.
    assert structure.expected_depths(make_plan(3, [(1, 2)]), [1, 0, 0]) == (2, 2, 0.5, 0)


def test_a_uniform_prior_is_no_prior():
    assert structure.expected_depths(cyclic(6, 6), [1 / 6] * 6) == pytest.approx(
        structure.expected_depths(cyclic(6, 6)), rel=1e-12
    )


def test_more_slices_than_can_be_enumerated():
    with pytest.raises(ValueError, match="at most 20 slices"):
        structure.expected_depths(sisa(21))
    assert structure.summary(sisa(21))["depth_served"] is None and structure.summary(sisa(20))["depth_served"]["0"] == 20


# priors and masks


@pytest.mark.parametrize(
    "slices, prior, message",
    [
        (2, [0.5, 0.25, 0.25], "one probability for each of 2 slices, got 3"),
        (2, [0.5, 0.50001], "must sum to 1, got 1.00001"),
        (2, [1.5, -0.5], "negative"),
        (2, [float("nan"), 1], "non-finite"),
    ],
)
def test_a_malformed_prior_is_refused(slices, prior, message):
    with pytest.raises(ValueError, match=message):
        structure.as_prior(slices, prior)


def test_a_prior_is_scaled_to_sum_to_1():
    assert structure.as_prior(2, [0.5, 0.5000008]) == pytest.approx([0.4999996, 0.5000004], abs=1e-12)
    np.testing.assert_array_equal(structure.as_prior(4, None), 0.25)


def test_masks_and_subset_sums():
    assert structure.mask_of((2, 0)) == 0b101 and structure.mask_of(()) == 0
    assert structure.subset_sums(np.array([1.0, 10.0, 100.0])).tolist() == [0, 1, 10, 11, 100, 101, 110, 111]


# what a reader sees


def test_render():
    assert structure.render(make_plan(4, [(2, 0, 3), (2, 1, 3), (2, 1, 0), (0,), (1,)]).nodes) == (
        "0\n1\n2\n├─ 0\n│  └─ 3\n└─ 1\n   ├─ 0\n   └─ 3"
    )


def test_summary():
    assert structure.summary(make_plan(2, [(0, 1), (1,)])) == {
        "nodes": [[0], [1], [0, 1]],
        "sequences": [[1], [0, 1]],
        "stages": 3,
        "flops_plain": 0.75 + 0.75 + 2,
        "flops_cached": 0.5 + 0.5 + 2,
        "depth_served": {"0": 2.0, "1": 1.0, "2": 0.0},
    }
    assert structure.summary(sisa(2), [0.75, 0.25])["depth_served"]["1"] == 0.25


@pytest.mark.parametrize("plan", [sisa(1), stumps(3), lattice(4), full(3)])
def test_the_picture_shows_every_node_and_edge(plan):
    figure = plan_figure.draw(plan)
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == sorted(str(node[-1]) for node in plan.nodes)
    edges = {tuple(zip(*line.get_data(), strict=True)) for line in axes.lines}
    where = {node: (x, len(node)) for node, x in plan_figure.positions(plan).items()}
    assert edges == {(where[node[:-1]], where[node]) for node in plan.nodes if len(node) > 1}
    assert len(set(where.values())) == len(plan.nodes)
    figure.draw_without_rendering()
    title = figure.texts[0].get_window_extent()
    assert title.x0 >= 0 and title.x1 <= figure.bbox.x1


# the command line


def run(capsys, line):
    try:
        status = main(line.split())
    except SystemExit as left:
        status = left.code
    return (status, *capsys.readouterr())


@pytest.mark.parametrize("name", PLANNERS)
def test_plan_prints_one_object(capsys, name):
    budget = {"greedy": 8.75, "sisa": 1}.get(name, 4)
    status, out, err = run(capsys, f"plan --planner {name} --slices 4 --budget {budget} --json")
    expected = structure.summary(PLANNERS[name](4, budget, None))
    assert (status, json.loads(out), err) == (0, json.loads(json.dumps(expected)), "")
    assert out.count("\n") == 1


def test_plan_with_a_prior(capsys):
    prior = [0.5, 0.3, 0.2]
    out = json.loads(run(capsys, "plan --planner stumps --slices 3 --prior 0.5,0.3,0.2 --json")[1])
    assert out["sequences"] == [[0], [1], [2, 1, 0]]
    expected = structure.expected_depths(stumps(3, None, prior), prior)
    assert out["depth_served"] == dict(zip("0123", expected, strict=True))


def test_plan_in_words(capsys):
    assert run(capsys, "plan --planner stumps --slices 2") == (
        0,
        "0\n└─ 1\n1\n\nstages: 3 in 2 sequences\nFLOPs: 3.5, 3 with cached prefixes (forward passes per epoch)\n"
        "expected depth after 0, 1, ... distinct slices are gone: 2, 1, 0\n",
        "",
    )
    assert "expected depth" not in run(capsys, "plan --planner sisa --slices 21")[1]


@pytest.mark.parametrize(
    "line, message",
    [
        ("", "COMMAND"),
        ("plna", "invalid choice: 'plna'"),
        ("plan --slices 4", "--planner"),
        ("plan --planner best --slices 4", "invalid choice: 'best'"),
        ("plan --planner sisa --slices four", "expected 1 to 256 slices, got 'four'"),
        ("plan --planner sisa --slices 0", "1 to 256 slices"),
        ("plan --planner cyclic --slices 3 --budget 7", "only 6 sequences"),
        ("plan --planner cyclic --slices 3 --budget 0", "positive"),
        ("plan --planner bms --slices 3 --prior 0.5,0.5,0.1", "sum to 1"),
        ("plan --planner bms --slices 3 --prior 0.5;0.5", "numbers between commas"),
        ("plan --planner greedy --slices 3", "greedy needs a budget"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, line, message):
    status, out, err = run(capsys, line + " --json" * bool(line))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and message in err


def test_the_module_runs_as_a_program():
    command = [sys.executable, "-m", "s3t", "plan", "--planner", "cyclic", "--slices", "3", "--budget"]
    good, bad = (subprocess.run([*command, budget, "--json"], capture_output=True, text=True) for budget in ("3", "7"))
    assert (good.returncode, json.loads(good.stdout)["stages"], good.stderr) == (0, 9, "")
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)


def test_plans_need_no_jax():
    code = "import sys, s3t.plans.structure, s3t.__main__; print(sorted({'jax', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"

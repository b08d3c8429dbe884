"""The results of the commands of `python -m s3t` in lines of words; with --json they are printed as they are.

What others wrote, such as names, reasons and requests, stands in these lines as it is: `terminal.shown` keeps each a line.
"""

from __future__ import annotations

from typing import Any

from s3t.plans import structure

Result = dict[str, Any]


def plan_lines(result: Result) -> list[str]:
    """A plan as a tree with its cost."""
    lines = [*structure.render(tuple(node) for node in result["nodes"]).split("\n"), ""]
    lines += [f"stages: {result['stages']} in {len(result['sequences'])} sequences"]
    lines += [
        f"FLOPs: {result['flops_plain']:.6g}, {result['flops_cached']:.6g} with cached prefixes (forward passes per epoch)"
    ]
    if result["depth_served"] is not None:
        depths = ", ".join(f"{depth:.4g}" for depth in result["depth_served"].values())
        lines += [f"expected depth after 0, 1, ... distinct slices are gone: {depths}"]
    return lines


def simulate_lines(result: Result) -> list[str]:
    """Requests survived, in words."""

    def shown(estimate: Result, digits: int = 2) -> str:
        low, high = estimate["ci95"]
        return f"{estimate['mean']:.{digits}f} (95%: {low:.{digits}f} to {high:.{digits}f})"

    lines = [
        f"requests until the first shard has no model: {shown(result['deletions_to_first_dead_shard'])}",
        f"requests until no shard has a model: {shown(result['deletions_to_rebuild'])}",
    ]
    if "closed_form" in result:
        lines += [f"expected by the closed form: {result['closed_form']:.2f}"]
    for row in result.get("after", []):
        quality = f", quality {shown(row['quality'], 4)}" if "quality" in row else ""
        lines += [f"after {row['requests']} requests: depth {shown(row['depth'])}{quality}"]
    return lines


def status_lines(result: Result) -> list[str]:
    """A store in a few lines."""
    nodes = result["nodes"]
    requests = ", ".join(f"{count} {state}" for state, count in result["requests"].items()) or "none"
    depth = ", ".join(map(str, result["depth"]))
    lines = [
        f"{'ok' if result['ok'] else 'not ok'}, {result['state']}: depth served by shard {depth}",
        f"nodes: {nodes['live']} live, {nodes['missing']} missing, {nodes['leftovers']} files to be removed",
        f"examples: {result['examples']}, {result['deleted']} of them deleted",
        f"requests: {requests}",
        f"head: {result['head']} after {result['rows']} rows",
    ]
    lines += [f"warning: {note}" for note in result["notes"]]
    return [*lines, *(f"problem: {problem}" for problem in result["problems"])]


def delete_lines(result: Result) -> list[str]:
    """A deletion in words."""
    if not result.get("ok", True):
        asked = ("example", result["unknown"]), ("group", result.get("unknown_groups", []))
        lacking = " and ".join(f"no {what} {', '.join(map(str, names))}" for what, names in asked if names)
        return [f"nothing was deleted: the store has {lacking}"]
    if result.get("redacted"):
        told = [f"request {result['request']} was healed, and its ids are redacted since", f"head: {result['head']}"]
        return told + ([f"no receipt: {result['no_receipt']}"] if "no_receipt" in result else [])
    lines = [f"request {result['request']}: {len(result['ids'])} examples deleted, {result['nodes_dropped']} nodes dropped"]
    listed = ("names", "groups", "already", "unknown", "unknown_groups")
    lines += [f"{what.replace('_', ' ')}: {', '.join(map(str, result[what]))}" for what in listed if result.get(what)]
    return [*lines, f"head: {result['head']} (acknowledged in {result['acknowledged_ms']:.2f} ms)"]


def verify_lines(result: Result) -> list[str]:
    """A proof in words."""
    lines = [f"problem: {problem}" for problem in result["problems"]]
    replayed = result.get("replay", {})
    if result.get("verdict") == "nothing was proved":
        asked, proved = replayed["asked"], replayed["proved"]
        why = f"{asked - proved} of {asked} nodes could not" if proved else "no node could"
        lines += [f"nothing was proved by replay: {why} be judged here"]
    if not result["problems"]:
        judged = "ok" if result["ok"] else "by the record"
        lines += [
            f"{judged}: none of {result['nodes']} serving nodes holds one of {result['deleted']} deleted examples",
            f"head: {result['head']} after {result['rows']} rows",
        ]
    for proof in result.get("proofs", ()):
        holders = sum(node["holds"] for node in proof["nodes"])
        lines += [f"id {proof['id']}: {holders} of {len(proof['nodes'])} serving nodes hold it (--json prints the proofs)"]
    if replayed:
        lines += [f"asked for: {replayed['asked']} of {replayed['serving']} nodes"]
        kinds = ("identical", "differs", "damaged", "not replayable here")
        lines += ["replayed: " + ", ".join(f"{len(replayed[kind])} {kind}" for kind in kinds)]
        lines += [f"not replayable here: {reason}" for reason in replayed["reasons"]]
    return lines


def predict_lines(result: Result) -> list[str]:
    """Predicted labels, or losses where there are no labels, and what predicted them."""
    told = result["labels"] if "labels" in result else [f"loss {loss:.4g}" for loss in result["losses"]]
    lines = [f"{id_}: {one}" for id_, one in zip(result["ids"], told, strict=True)]
    lines += [f"problem: {problem}; heal the store" for problem in result["problems"]]
    return [*lines, f"depth served by shard {', '.join(map(str, result['depth']))}", f"head: {result['head']}"]


def claims_lines(result: Result) -> list[str]:
    """Claims with their verdicts."""
    lines = [
        f"{claim['verdict']}: {claim['claim']}{': ' * bool(claim['reason'])}{claim['reason']}" for claim in result["claims"]
    ]
    return [*lines, "ok" if result["ok"] else f"not ok: {result['verdict']}"]


def key_lines(result: Result) -> list[str]:
    """Where a key is."""
    public = f"public key: {result['public']} ({result['public_key']})"
    return [f"private key: {result['private']}, keep it secret", public]


def trained_lines(result: Result) -> list[str]:
    """What was trained, and what is served."""
    lines = [f"trained: {result['trained']} nodes, {result['discarded']} in vain; {result['skipped']} have no examples"]
    lines += [f"appended: {result['appended']} examples"] if "appended" in result else []
    lines += [f"healed: {', '.join(result['healed'])}"] if result["healed"] else []
    return lines + status_lines(result)

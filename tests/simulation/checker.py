"""Holds the raw bytes of a log against the world. Reads JSON and nothing of esexec: what it knows, the documents say."""

import hashlib
import json
from typing import Any

Histories = dict[str, list[bytes]]

ENDS = {"execution_completed", "execution_failed", "execution_cancelled"}
OUTCOMES = {"task_completed", "task_failed", "task_timed_out"}


def broken_chains(histories: Histories) -> list[str]:
    """Numbers and versions that are not gapless, hashes that do not fit."""
    found: list[str] = []
    for entity, commits in histories.items():
        previous, version = "", 1
        for n, data in enumerate(commits, 1):
            commit = json.loads(data)
            if (commit["execution_id"], commit["n"], commit["version"]) != (entity, n, version):
                found.append(
                    f"{entity}: commit {n} calls itself {commit['execution_id']} {commit['n']}, version {commit['version']}"
                )
            if commit.get("prev", "") != previous:
                found.append(f"{entity}: commit {n} does not follow the bytes before it")
            previous, version = hashlib.sha256(data).hexdigest(), version + len(commit["events"])
            if not commit["events"]:
                found.append(f"{entity}: commit {n} holds nothing")
    return found


def events_of(commits: list[bytes]) -> list[dict[str, Any]]:
    return [event for data in commits for event in json.loads(data)["events"]]


def executions(histories: Histories) -> Histories:
    return {entity: commits for entity, commits in histories.items() if not entity.startswith("_")}


def broken_rules(histories: Histories) -> list[str]:
    """Outcomes accepted twice, attempts out of turn, steps before their dependencies, events after the end."""
    found: list[str] = []
    for entity, commits in executions(histories).items():
        events = events_of(commits)
        found += [f"{entity}: {problem}" for problem in _rules_of(events)]
        ids = [cause["id"] for data in commits for cause in json.loads(data).get("commands", ()) if "/" not in cause["id"]]
        if len(ids) != len(set(ids)):
            found.append(f"{entity}: a command was applied twice")
    return found


def _rules_of(events: list[dict[str, Any]]) -> list[str]:
    if [event["type"] for event in events[:2]] != ["execution_created", "execution_started"]:
        return ["it does not begin with its creation"]
    waits_for = {step["id"]: set(step.get("depends_on", ())) for step in events[0]["plan"]["steps"]}
    found: list[str] = []
    scheduled: dict[str, int] = {}
    closed: set[tuple[str, int]] = set()
    settled: dict[str, str] = {}
    wanted: set[str] = set()
    ending = ended = False
    for event in events[2:]:
        kind, step, attempt = event["type"], event.get("step", ""), event.get("attempt", 1)
        if ended:
            found.append(f"{kind} after the end")
        if step in settled:
            found.append(f"{kind} of {step}, which is {settled[step]}")
        if kind == "task_scheduled":
            if attempt != scheduled.get(step, 0) + 1 or (attempt > 1 and step not in wanted):
                found.append(f"attempt {attempt} of {step} was scheduled out of turn")
            if missing := [other for other in waits_for[step] if settled.get(other) != "task_completed"]:
                found.append(f"{step} was scheduled before {missing}")
            if ending:
                found.append(f"{step} was scheduled while the execution ends")
            scheduled[step] = attempt
            wanted.discard(step)
        elif kind == "task_retry_scheduled":
            wanted.add(step)
        elif kind in OUTCOMES:
            if (step, attempt) in closed or scheduled.get(step) != attempt:
                found.append(f"{kind} of {step} {attempt}: that attempt is not open")
            closed.add((step, attempt))
            if not event.get("will_retry"):
                settled[step] = kind
        elif kind in ("task_cancelled", "task_skipped"):
            settled[step] = kind
        elif kind == "execution_cancel_requested":
            ending = True
        elif kind in ENDS:
            ended = True
            if len(settled) != len(waits_for):
                found.append(f"{kind} while {set(waits_for) - set(settled)} have not ended")
    return found


def applied_commands(histories: Histories) -> set[str]:
    """The ids of the commands that some commit was decided upon."""
    return {cause["id"] for commits in histories.values() for data in commits for cause in json.loads(data).get("commands", ())}


def without_end(histories: Histories) -> list[str]:
    """Executions that were begun and did not end."""
    return [entity for entity, commits in executions(histories).items() if events_of(commits)[-1]["type"] not in ENDS]


def unlike_the_world(histories: Histories, reported: dict[tuple[str, str, int], list[Any]]) -> list[str]:
    """Outputs in the log that no worker ever reported for that attempt."""
    found: list[str] = []
    for entity, commits in executions(histories).items():
        for event in events_of(commits):
            if event["type"] == "task_completed":
                attempt = (entity, event["step"], event.get("attempt", 1))
                if event.get("output") not in reported.get(attempt, []):
                    found.append(f"{attempt} completed with what nobody reported")
    return found


def doubled_keys(histories: Histories) -> list[str]:
    """Idempotency keys that stand for more than one execution, or whose execution does not know them."""
    found: list[str] = []
    owners: dict[str, list[str]] = {}
    for entity, commits in executions(histories).items():
        if key := events_of(commits)[0].get("idempotency_key"):
            owners.setdefault(key, []).append(entity)
    bound = {
        events_of(commits)[-1]["key"]: events_of(commits)[-1]["execution_id"]
        for e, commits in histories.items()
        if e.startswith("_key-")
    }
    for key, entities in owners.items():
        if entities != [bound.get(key)]:
            found.append(f"key {key} belongs to {bound.get(key)}, and {entities} were started with it")
    return found

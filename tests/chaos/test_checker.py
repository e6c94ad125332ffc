"""The checker itself: content with every golden history, and not with any that was tampered with."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import Report, Stored, check_log

HISTORIES = Path(__file__).parents[1] / "histories"
FILES = sorted(HISTORIES.glob("*.jsonl"))
MAY_REPEAT = {"task_rate_limited", "checkpoint_failed", "execution_forked", "execution_deadline_set"}
"""Events that may follow upon their like."""


def commits_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def checked(commits: list[dict[str, Any]], world: Path | None = None, **more: Any) -> Report:
    """The report over one history, numbered and chained anew. That it has not ended is no problem here."""
    stored, prev, version = [], "", 1
    for n, commit in enumerate(commits, 1):
        data = json.dumps(commit | {"n": n, "version": version, "prev": prev}).encode()
        stored.append(Stored(n, f"esexec.t.log.{commit['execution_id']}.{n}", data))
        prev, version = hashlib.sha256(data).hexdigest(), version + len(commit["events"])
    report = check_log(stored, {}, world, **more)
    report.problems = [one for one in report.problems if "has not ended" not in one and "never bound" not in one]
    return report


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_history_is_without_a_problem(file: Path) -> None:
    """What the engine decides is what this second statement of the law allows."""
    assert checked(commits_of(file)).problems == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_event_that_is_told_twice_is_noticed(file: Path) -> None:
    """Whichever it is: nothing starts, ends, is undone, paused or restored twice."""
    for n, commit in enumerate(commits_of(file)):
        for at, event in enumerate(commit["events"]):
            if event["type"] in MAY_REPEAT:
                continue
            tampered = commits_of(file)
            tampered[n]["events"].insert(at, event)
            assert checked(tampered).problems, f"commit {n + 1}: {event['type']}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_report_of_another_run_is_noticed(file: Path) -> None:
    """An event of a step that calls itself one of the run before, or after, cannot stand where it stands."""
    for n, commit in enumerate(commits_of(file)):
        for at, event in enumerate(commit["events"]):
            if "step" not in event or event["type"] == "execution_retried":
                continue
            tampered = commits_of(file)
            tampered[n]["events"][at] = event | {"run": event.get("run", 1) + 1}
            assert checked(tampered).problems, f"commit {n + 1}: {event['type']}"


def _swap_undone(commits: list[dict[str, Any]]) -> None:
    """Two steps change places in the rollback."""
    undone = [event["step"] for commit in commits for event in commit["events"] if event["type"] == "compensation_completed"]
    other = {undone[0]: undone[1], undone[1]: undone[0]}
    for commit in commits:
        for event in commit["events"]:
            if event["type"].startswith("compensation_"):
                event["step"] = other.get(event["step"], event["step"])


def _drop(kind: str) -> Callable[[list[dict[str, Any]]], None]:
    def drop(commits: list[dict[str, Any]]) -> None:
        for commit in commits:
            commit["events"] = [event for event in commit["events"] if event["type"] != kind] or [{"type": "checkpoint_failed"}]

    drop.__name__ = f"drop_{kind}"
    return drop


@pytest.mark.parametrize(
    ("kind", "tamper"),
    [
        ("rolled_back", _swap_undone),
        ("rolled_back", _drop("compensation_completed")),
        ("rolled_back", _drop("rollback_started")),
        ("recovered", _drop("recovery_completed")),
        ("recovered", _drop("recovery_initiated")),
        ("checkpoint_restored", _drop("checkpoint_restored")),
        ("checkpoint_restored", _drop("checkpoint_created")),
        ("paused", _drop("execution_resumed")),
        ("paused", _drop("execution_paused")),
        ("retried_execution", _drop("execution_retried")),
        ("fallback", _drop("task_fallback_started")),
        ("queue_timeout", _drop("task_overdue")),
        ("deadline", _drop("execution_deadline_exceeded")),
        ("partial_rollback", _drop("compensation_failed")),
    ],
)
def test_what_was_left_out_or_moved_is_noticed(kind: str, tamper: Callable[[list[dict[str, Any]]], None]) -> None:
    """What follows does not make sense without it."""
    commits = commits_of(HISTORIES / f"{kind}.jsonl")
    tamper(commits)
    assert checked(commits).problems


def test_a_command_that_was_carried_out_twice_or_not_at_all_is_noticed() -> None:
    """Twice in the log, or acknowledged and not in it."""
    commits = commits_of(HISTORIES / "paused.jsonl")
    command = commits[0]["commands"][0]["id"]
    assert checked(commits, wishes={command: ("e1", True)}).problems == []
    assert checked(commits, wishes={"lost": ("e1", True)}).problems
    assert checked(commits, wishes={command: ("e1", False)}).contradicted
    commits[-1].setdefault("commands", []).append({"id": command})
    assert checked(commits).problems


@pytest.mark.parametrize(("undone", "content"), [(("site", "dock"), True), (("site",), False), (("site", "dock", "note"), False)])
def test_what_stands_in_the_world_and_not_in_the_log_is_noticed(tmp_path: Path, undone: tuple[str, ...], content: bool) -> None:
    """Of a rolled back execution nothing is left but what nothing undoes, and what was not undone is there."""
    commits = commits_of(HISTORIES / "rolled_back.jsonl")
    lines = []
    for commit in commits:
        for event in commit["events"]:
            at = {"execution": "e1", "step": event.get("step"), "attempt": event.get("attempt", 1), "key": event.get("step")}
            if event["type"] == "task_completed":
                lines += [at | {"phase": "begin"}, at | {"phase": "end", "output": event.get("output")}]
    for step in {*undone, "price"}:
        at = {"execution": "e1", "step": step, "attempt": 2, "key": f"{step}/undo", "purpose": "compensation"}
        lines.append(at | {"phase": "undone", "value": "old"})
    world = tmp_path / "world.jsonl"
    world.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (checked(commits, world).problems == []) is content

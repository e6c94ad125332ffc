"""Holds the log of a namespace against the world. Knows the wire, and imports nothing of esexec: a bug there cannot hide here.

    python -m tests.chaos.checker URL NAMESPACE [--world FILE] [--allow-leftovers]

Reads the raw streams and says what contradicts the promises: every history whole, lawful and ended; every acknowledged start
among them; every completed step's output one that a handler gave to the world; nothing left on the way; nothing dead.
"""

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from tests.chaos.tale import Tale

MUST_BE_EMPTY = ("COMMANDS", "INBOX", "TASKS", "TIMERS", "DEAD")


@dataclass
class Stored:
    """A message of the log as it lies there."""

    sequence: int
    subject: str
    data: bytes

    @property
    def entity(self) -> str:
        return self.subject.split(".")[3]


@dataclass
class Report:
    """What was found. `ends`: how each execution ended (None: it has not). `last_sequence`: of the log."""

    problems: list[str] = field(default_factory=list)
    ends: dict[str, str | None] = field(default_factory=dict)
    last_sequence: int = 0
    commits: int = 0
    events: int = 0
    outcomes: int = 0

    def __str__(self) -> str:
        head = f"{len(self.ends)} executions, {self.commits} commits, {self.events} events, {self.outcomes} outcomes"
        shown = [f"  {problem}" for problem in self.problems[:40]]
        return "\n".join([f"{head}; {len(self.problems)} problems", *shown])


async def read_log(client: Client, namespace: str) -> list[Stored]:
    """Every message of the log, in order."""
    stream = f"ESEXEC_{namespace}_LOG"
    context = client.jetstream(timeout=10)
    expected = (await context.stream_info(stream)).state.messages
    subscription = await context.subscribe(f"esexec.{namespace}.log.*.*", stream=stream, ordered_consumer=True)
    found: list[Stored] = []
    while len(found) < expected:
        message = await subscription.next_msg(timeout=10)
        found.append(Stored(message.metadata.sequence.stream, message.subject, message.data))
    await subscription.unsubscribe()
    return found


async def left(client: Client, namespace: str, streams: Iterable[str] = MUST_BE_EMPTY) -> dict[str, int]:
    """How many messages lie in streams that should be empty at the end; those that are empty are not named."""
    context = client.jetstream(timeout=10)
    counts = {name: (await context.stream_info(f"ESEXEC_{namespace}_{name}")).state.messages for name in streams}
    return {name: count for name, count in counts.items() if count}


async def left_subjects(client: Client, namespace: str, streams: Iterable[str] = MUST_BE_EMPTY) -> dict[str, dict[str, int]]:
    """As `left`, with the subjects: for messages to humans."""
    context = client.jetstream(timeout=10)
    found = {}
    for name in streams:
        info = await context.stream_info(f"ESEXEC_{namespace}_{name}", subjects_filter=">")
        if info.state.subjects:
            found[name] = dict(list(info.state.subjects.items())[:20])
    return found


async def check(
    url: str,
    namespace: str,
    *,
    world: Path | None = None,
    acknowledged: Mapping[str, Iterable[str]] | None = None,
    may_be_left: Iterable[str] = (),
) -> Report:
    """Everything in the module's docstring. `acknowledged`: executions that must exist, and how each may have ended."""
    client = await nats.connect(url, allow_reconnect=False)
    try:
        report = check_log(await read_log(client, namespace), acknowledged or {}, world)
        must_be_empty = [name for name in MUST_BE_EMPTY if name not in set(may_be_left)]
        for name, subjects in (await left_subjects(client, namespace, must_be_empty)).items():
            report.problems.append(f"{name} holds {subjects}")
    finally:
        await client.close()
    return report


def check_log(stored: list[Stored], acknowledged: Mapping[str, Iterable[str]], world: Path | None = None) -> Report:
    """The log alone, and against the world's file."""
    report = Report(last_sequence=stored[-1].sequence if stored else 0, commits=len(stored))
    tales = {entity: _tale(entity, messages, report) for entity, messages in _by_entity(stored).items()}
    executions = {entity: tale for entity, tale in tales.items() if not entity.startswith("_")}
    for entity, tale in executions.items():
        report.ends[entity] = tale.end
        report.outcomes += sum(len(step.outcomes) for step in tale.steps.values())
        if tale.end is None:
            report.problems.append(f"{entity} has not ended: {tale.position}")
    for entity, allowed in acknowledged.items():
        if entity not in executions:
            report.problems.append(f"{entity} was acknowledged and has no history")
        elif (end := executions[entity].end) is not None and end not in set(allowed):
            report.problems.append(f"{entity} ended as {end}, not {'/'.join(allowed)}: {executions[entity].position}")
    _check_keys(tales, executions, report)
    if world is not None:
        _check_world(executions, world, report)
    return report


def _by_entity(stored: list[Stored]) -> dict[str, list[Stored]]:
    entities: dict[str, list[Stored]] = {}
    for message in stored:
        entities.setdefault(message.entity, []).append(message)
    return entities


def _tale(entity: str, messages: list[Stored], report: Report) -> Tale:
    """Check the chain of one entity, and follow its events."""
    tale, previous, version = Tale(entity), "", 1
    for n, message in enumerate(messages, 1):
        where = f"{entity} commit {n} (at {message.sequence})"
        commit: dict[str, Any] = json.loads(message.data)
        if message.subject.rsplit(".", 1)[1] != str(n) or commit["n"] != n or commit["execution_id"] != entity:
            report.problems.append(f"{where}: stands as {message.subject}, calls itself {commit['execution_id']}/{commit['n']}")
        if commit["version"] != version:
            report.problems.append(f"{where}: begins with version {commit['version']}, not {version}")
        if commit.get("prev", "") != previous:
            report.problems.append(f"{where}: prev is not the hash of the commit before")
        if not commit["events"]:
            report.problems.append(f"{where}: holds no event")
        for event in commit["events"]:
            if (problem := tale.tell(event)) is not None:
                report.problems.append(f"{where}: {problem}")
            version += 1
        previous = hashlib.sha256(message.data).hexdigest()
    report.events += version - 1
    return tale


def _check_keys(tales: Mapping[str, Tale], executions: Mapping[str, Tale], report: Report) -> None:
    """Each idempotency key belongs to one execution, and the log says so in the key's own history."""
    owners: dict[str, str] = {}
    for entity, tale in executions.items():
        key = tale.idempotency_key
        if key is None:
            continue
        if key in owners:
            report.problems.append(f"the key {key} belongs to {owners[key]} and to {entity}")
        owners[key] = entity
        if not any(other.bound == (key, entity) for name, other in tales.items() if name.startswith("_key-")):
            report.problems.append(f"the key {key} of {entity} was never bound to it")


def _check_world(executions: Mapping[str, Tale], world: Path, report: Report) -> None:
    """What handlers wrote outside, against what the log says they gave."""
    ran: dict[tuple[str, str, int, int], list[Any]] = {}
    keys: dict[tuple[str, str, int], set[str]] = {}
    for line in world.read_text().splitlines():
        note = json.loads(line)
        run = note.get("run", 1)
        keys.setdefault((note["execution"], note["step"], run), set()).add(note["key"])
        if note["phase"] == "end":
            ran.setdefault((note["execution"], note["step"], run, note["attempt"]), []).append(note["output"])
    for step, found in keys.items():
        if len(found) > 1:
            report.problems.append(f"{step}: several idempotency keys: {found}")
    owners: dict[str, tuple[str, str, int]] = {}
    for step, found in keys.items():
        for key in found:
            if owners.setdefault(key, step) != step:
                report.problems.append(f"{step} and {owners[key]} share the idempotency key {key}")
    for entity, tale in executions.items():
        for step_id, step in tale.steps.items():
            if step.settled != "completed":
                continue
            given = ran.get((entity, step_id, step.run, step.attempt), [])
            if step.output not in given:
                report.problems.append(f"{entity}/{step_id}: the log says {step.output!r}, the world {given}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Hold the log of a namespace against the world.")
    parser.add_argument("url")
    parser.add_argument("namespace")
    parser.add_argument("--world", type=Path, help="what handlers wrote: a JSON object per line")
    parser.add_argument("--allow-leftovers", action="store_true", help="do not ask for empty streams (but DEAD)")
    arguments = parser.parse_args()
    may_be_left = MUST_BE_EMPTY[:-1] if arguments.allow_leftovers else ()
    report = asyncio.run(check(arguments.url, arguments.namespace, world=arguments.world, may_be_left=may_be_left))
    print(report)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())

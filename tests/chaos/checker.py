"""Holds the log of a namespace against the world. Knows the wire, and imports nothing of esexec: a bug there cannot hide here.

    python -m tests.chaos.checker URL NAMESPACE [--world FILE] [--allow-leftovers]

Reads the raw streams and says what contradicts the promises: every history whole, lawful and ended (or paused, if that was
expected); every acknowledged start and command in them, each once; every completed step's output one that a handler gave to the
world; every effect that stands in the log there in the world, and no other, but for those of unknown outcome; nothing left on the
way; nothing dead.
"""

import argparse
import asyncio
import hashlib
import json
import sys
from collections import Counter
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
    undone: int = 0
    unknown: list[str] = field(default_factory=list)
    """Effects of which the log does not say whether they stand, and why."""
    told: Counter[str] = field(default_factory=Counter)
    contradicted: list[str] = field(default_factory=list)
    """Commands that were said to have no effect, and had one: a server that is killed hands out twice what is in hand."""

    def __str__(self) -> str:
        head = f"{len(self.ends)} executions, {self.commits} commits, {self.events} events, {self.outcomes} outcomes"
        head += f", {self.undone} undone, {len(self.unknown)} of unknown outcome, {len(self.contradicted)} refusals contradicted"
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
    wishes: Mapping[str, tuple[str, bool]] | None = None,
    may_be_left: Iterable[str] = (),
) -> Report:
    """Everything in the module's docstring. `acknowledged`: executions that must exist, and how each may have ended (`paused`: it
    has not). `wishes`: commands that were answered, whose execution each is, and whether it was said to have taken effect."""
    client = await nats.connect(url, allow_reconnect=False)
    try:
        report = check_log(await read_log(client, namespace), acknowledged or {}, world, wishes or {})
        must_be_empty = [name for name in MUST_BE_EMPTY if name not in set(may_be_left)]
        for name, subjects in (await left_subjects(client, namespace, must_be_empty)).items():
            report.problems.append(f"{name} holds {subjects}")
    finally:
        await client.close()
    return report


def check_log(
    stored: list[Stored],
    acknowledged: Mapping[str, Iterable[str]],
    world: Path | None = None,
    wishes: Mapping[str, tuple[str, bool]] | None = None,
) -> Report:
    """The log alone, and against the world's file."""
    report = Report(last_sequence=stored[-1].sequence if stored else 0, commits=len(stored))
    tales = {entity: _tale(entity, messages, report) for entity, messages in _by_entity(stored).items()}
    executions = {entity: tale for entity, tale in tales.items() if not entity.startswith("_")}
    for entity, tale in executions.items():
        report.ends[entity] = tale.end or ("paused" if tale.paused else None)
        report.outcomes += sum(tale.outcomes.values())
        report.undone += tale.told["compensation_completed"]
        report.told += tale.told
        if report.ends[entity] is None:
            report.problems.append(f"{entity} has not ended: {tale.position}")
    for entity, allowed in acknowledged.items():
        if entity not in executions:
            report.problems.append(f"{entity} was acknowledged and has no history")
        elif (end := report.ends[entity]) is not None and end not in set(allowed):
            report.problems.append(f"{entity} ended as {end}, not {'/'.join(allowed)}: {executions[entity].position}")
    for command, (entity, effective) in (wishes or {}).items():
        times = tales[entity].commands[command] if entity in tales else 0
        if times and not effective:
            report.contradicted.append(f"{entity}: {command}")
        elif times != effective:
            report.problems.append(f"{entity}: the command {command}, effective {effective}, stands in the log {times} times")
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
    tale, previous, version, first = Tale(entity), "", 1, 1
    begin: dict[str, Any] = json.loads(messages[0].data)
    if entity.startswith("_") and begin["events"][:1] and begin["events"][0]["type"] == "compacted":
        previous, version, first = begin.get("prev", ""), begin["version"], begin["n"]  # what was before may be gone
    for n, message in enumerate(messages, first):
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
        if (problem := tale.caused_by(command["id"] for command in commit.get("commands", ()))) is not None:
            report.problems.append(f"{where}: {problem}")
        previous = hashlib.sha256(message.data).hexdigest()
    report.events += tale.version
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
    notes = [json.loads(line) for line in world.read_text().splitlines()]
    _check_idempotency_keys(notes, report)
    ran: dict[tuple[str, str, int, int], list[Any]] = {}
    effects: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for note in notes:
        at = (note["execution"], note["step"], note.get("run", 1), note["attempt"])
        if note["phase"] == "end":
            ran.setdefault(at, []).append(note["output"])
        if note["phase"] in ("begin", "end", "undone"):
            elsewhere = note.get("elsewhere") or note.get("purpose") == "fallback"
            effects.setdefault((note["execution"], note["step"] + ("~" if elsewhere else "")), []).append(note)
    for entity, tale in executions.items():
        for step, run, attempt, output in tale.completions:
            given = ran.get((entity, step, run, attempt), [])
            if output not in given:
                report.problems.append(f"{entity}/{step} {run}-{attempt}: the log says {output!r}, the world {given}")
    for (entity, key), told in effects.items():
        if entity in executions:
            _check_effect(executions[entity], key, told, report)


def _check_idempotency_keys(notes: list[dict[str, Any]], report: Report) -> None:
    """One for all attempts of a step in a run that are for the same, and no other has it. An undoing has that of what it undoes,
    which may have been done in an earlier run."""
    keys: dict[tuple[str, str, int, str], set[str]] = {}
    undoings: dict[str, tuple[str, str]] = {}
    for note in notes:
        if note.get("purpose") == "compensation":
            about_step = (note["execution"], note["step"])
            if undoings.setdefault(note["key"], about_step) != about_step:
                report.problems.append(f"{about_step} and {undoings[note['key']]} share the idempotency key {note['key']}")
        elif note["phase"] != "advice":
            about = (note["execution"], note["step"], note.get("run", 1), note.get("purpose", "task"))
            keys.setdefault(about, set()).add(note["key"])
    owners: dict[str, tuple[str, str, int, str]] = {}
    for step, found in keys.items():
        if len(found) > 1:
            report.problems.append(f"{step}: several idempotency keys: {found}")
        for key in found:
            if owners.setdefault(key, step) != step:
                report.problems.append(f"{step} and {owners[key]} share the idempotency key {key}")


def _check_effect(tale: Tale, key: str, told: list[dict[str, Any]], report: Report) -> None:
    """Whether an effect is there (the last of `end` and `undone` says so) as the log has it; and was put back to what was."""
    is_there = next((note["phase"] == "end" for note in reversed(told) if note["phase"] != "begin"), False)
    where = f"{tale.entity}/{key}"
    late = _came_late(told)
    wrong = [note for note in told if note["phase"] == "undone" and note["value"] != "old"]
    if wrong and not late:
        report.problems.append(f"{where}: put back to {wrong[0]['value']!r} in {wrong[0]['run']}-{wrong[0]['attempt']}")
    deed = tale.last_of(key)
    should = deed is not None
    if deed in tale.uncertain:
        report.unknown.append(f"{where}: an attempt or an undoing of unknown outcome; it is there: {is_there}")
    elif should != is_there:
        if late or key in tale.loose:
            report.unknown.append(f"{where}: a handler that nobody waited for any more came later than its undoing")
        else:
            shown = [(note["phase"], note.get("run", 1), note["attempt"]) for note in told]
            report.problems.append(f"{where}: {'stands' if should else 'does not stand'} in the log, and in the world: {shown}")


def _came_late(told: list[dict[str, Any]]) -> bool:
    """Whether an attempt that was begun more than once (its first holder was lost, and went on) ended after an undoing."""
    begun = Counter((note.get("run", 1), note["attempt"]) for note in told if note["phase"] == "begin")
    undone = False
    for note in told:
        undone = undone or note["phase"] == "undone"
        if undone and note["phase"] == "end" and begun[note.get("run", 1), note["attempt"]] > 1:
            return True
    return False


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

"""Holds the raw bytes of a log against the world. Reads JSON and nothing of esexec: what it knows, the documents say."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.simulation import law as documents
from tests.simulation.law import Law
from tests.simulation.workers import Attempt

Histories = dict[str, list[bytes]]

ENDS = set(documents.ENDS)
LOOK = "look"
"""The timer that belongs to no event: an executor looks again where what is open is."""


class Auditor:
    """Reads a log as it grows, and keeps what is wrong with it in `problems`; `laws` are the executions it knows."""

    def __init__(self) -> None:
        self.laws: dict[str, Law] = {}
        self.problems: list[str] = []
        self._known: dict[str, tuple[int, int, str]] = {}
        self._names: dict[tuple[str, str, int], str] = {}

    def look(self, histories: Mapping[str, Sequence[Any]]) -> None:
        """Read what is new. The commits are stored messages with their bytes as `data`."""
        for entity, stored in histories.items():
            n, version, previous = self._known.get(entity, (0, 1, ""))
            for one in stored[n:]:
                commit = json.loads(one.data)
                self.problems += _broken_link(entity, commit, n + 1, version, previous)
                n, version, previous = n + 1, version + len(commit["events"]), hashlib.sha256(one.data).hexdigest()
                if not entity.startswith("_"):
                    self.law(entity).read(commit)
            self._known[entity] = (n, version, previous)

    def law(self, entity: str) -> Law:
        if entity not in self.laws:
            self.laws[entity] = Law(entity)
        return self.laws[entity]

    def open_attempts(self) -> set[Attempt]:
        """What workers may still do."""
        return self._attempts(lambda law: law.open_attempts)

    def abandoned(self) -> set[Attempt]:
        """What was left behind, by a restore or at a grace's end."""
        return self._attempts(lambda law: law.abandoned)

    def untouched(self) -> set[Attempt]:
        """What no worker ever had, as the log says."""
        return self._attempts(lambda law: law.untouched)

    def _attempts(self, of: Callable[[Law], list[tuple[str, int, int]]]) -> set[Attempt]:
        return {Attempt(law.entity, step, attempt, run) for law in self.laws.values() for step, run, attempt in of(law)}

    def all_problems(self) -> list[str]:
        return self.problems + [problem for law in self.laws.values() for problem in law.problems]

    # The world -----------------------------------------------------------------------------------------------------------

    def dispatched(self, attempt: Attempt, message: Any) -> None:
        """Nothing is handed out that the log does not hold, or with what it does not say."""
        law = self.law(attempt.execution)
        purpose = law.handed.get((attempt.step, attempt.run, attempt.number))
        if purpose != message.purpose:
            self.problems.append(f"{attempt} was handed out as {message.purpose}, and stands in the log as {purpose}")
        if message.vars not in law.all_vars:
            self.problems.append(f"{attempt} was handed out with variables that never were: {message.vars}")
        if isinstance(message.before, dict) and message.before not in law.all_images.get(attempt.step, []):
            self.problems.append(f"{attempt} was handed out with an image that was never kept")
        if message.purpose == "compensation":
            self._undone(law, attempt, message)

    def _undone(self, law: Law, attempt: Attempt, message: Any) -> None:
        """An undoing has what was done then, and one name, however often and in whichever run it is tried."""
        undoing = law.undoings[attempt.step, attempt.run, attempt.number]
        if message.params != undoing.params:
            self.problems.append(f"{attempt} undoes with {message.params}, and was done with {undoing.params}")
        if message.output != undoing.deed.output:
            self.problems.append(f"{attempt} undoes what gave {undoing.deed.output}, and is told {message.output}")
        name = self._names.setdefault((attempt.execution, attempt.step, undoing.deed.since), message.undoes)
        if name != message.undoes or name != undoing.deed.key:
            self.problems.append(f"{attempt} undoes {undoing.deed.key}, and is called {message.undoes} ({name} before)")

    def told_image(self, attempt: Attempt, image: Any) -> None:
        """A handler goes on to change something only once what was before stands in the log."""
        if [image] != self.law(attempt.execution).all_images.get(attempt.step, [])[-1:]:
            self.problems.append(f"{attempt} was told that {image} is kept")


def _broken_link(entity: str, commit: dict[str, Any], n: int, version: int, previous: str) -> list[str]:
    """Numbers and versions that are not gapless, a hash that does not fit, a commit for nothing, a command applied twice."""
    found: list[str] = []
    if (commit["execution_id"], commit["n"], commit["version"]) != (entity, n, version):
        found.append(f"{entity}: commit {n} calls itself {commit['execution_id']} {commit['n']}, version {commit['version']}")
    if commit.get("prev", "") != previous:
        found.append(f"{entity}: commit {n} does not follow the bytes before it")
    if not commit["events"]:
        found.append(f"{entity}: commit {n} holds nothing")
    return found


def broken_chains(histories: Histories) -> list[str]:
    """As above, of whole histories."""
    found: list[str] = []
    for entity, commits in histories.items():
        previous, version = "", 1
        for n, data in enumerate(commits, 1):
            commit = json.loads(data)
            found += _broken_link(entity, commit, n, version, previous)
            previous, version = hashlib.sha256(data).hexdigest(), version + len(commit["events"])
    return found


def events_of(commits: list[bytes]) -> list[dict[str, Any]]:
    return [event for data in commits for event in json.loads(data)["events"]]


def executions(histories: Histories) -> Histories:
    return {entity: commits for entity, commits in histories.items() if not entity.startswith("_")}


def applied_twice(histories: Histories) -> list[str]:
    """Commands that stand in more than one commit of an execution."""
    found: list[str] = []
    for entity, commits in executions(histories).items():
        ids = [cause["id"] for data in commits for cause in json.loads(data).get("commands", ()) if "/" not in cause["id"]]
        if len(ids) != len(set(ids)):
            found.append(f"{entity}: a command was applied twice")
    return found


def applied_commands(histories: Histories) -> set[str]:
    """The ids of the commands that some commit was decided upon."""
    return {cause["id"] for commits in histories.values() for data in commits for cause in json.loads(data).get("commands", ())}


def without_end(histories: Histories) -> list[str]:
    """Executions that were begun and are not at their end."""
    return [entity for entity, commits in executions(histories).items() if documents.law_of(entity, commits).ended is None]


def unlike_the_world(histories: Histories, reported: Mapping[Attempt, list[Any]]) -> list[str]:
    """Outcomes in the log that no worker ever reported for that attempt. Reports are read by their fields only."""
    found: list[str] = []
    for entity, commits in executions(histories).items():
        for event in events_of(commits):
            attempt = Attempt(entity, event.get("step", ""), event.get("attempt", 1), event.get("run", 1))
            said = reported.get(attempt, [])
            outputs = [report.output for report in said if hasattr(report, "output")]
            match event["type"]:
                case "task_completed" if event.get("output") not in outputs:
                    found.append(f"{attempt} completed with what nobody reported")
                case "compensation_completed" if not outputs:
                    found.append(f"{attempt} undid what nobody undid")
                case "recovery_completed" if not _advised(event, outputs, [one for one in said if not hasattr(one, "output")]):
                    found.append(f"{attempt} advised what nobody advised")
    return found


def _advised(event: dict[str, Any], outputs: list[Any], others: list[Any]) -> bool:
    """Whether a strategy said that; whatever was no advice, or came otherwise to its end, is an abort. One that nobody was asked
    (its question was taken back, which is told by `pause`) asks for nothing."""
    if any(output.get("action") == event["action"] for output in outputs):
        return True
    if event["action"] == "abort":
        return bool(others) or any(output.get("action") == "fly" for output in outputs)
    return not event["success"] and any(getattr(one, "pause", None) == 0 for one in others)


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


# At rest -----------------------------------------------------------------------------------------------------------------


def stuck(law: Law, stands: Any, timers: set[str]) -> list[str]:
    """What an execution waits for in vain, once no message is under way. `stands`: whether a dispatch is in TASKS or held; if
    not, an executor may be about to look for it again."""
    if law.ended is not None or not law.n:
        return []
    attempts = [Attempt(law.entity, step, attempt, run) for step, run, attempt in law.open_attempts]
    found = [f"nobody gets {attempt}, and it is not given up" for attempt in attempts if law.lives[attempt.step].held]
    if law.paused and not law.stopping:
        found.clear()
    if not law.paused and not law.stopping and LOOK not in timers:
        found += [f"{attempt} is open, and nobody will do it" for attempt in attempts if not stands(attempt)]
    if not law.paused:
        found += [f"{law.entity} waits for timer {one}, which does not stand" for one in law.timers if str(one) not in timers]
    if not law.paused and not timers and not any(stands(attempt) for attempt in attempts):
        found.append(f"{law.entity} ({law.situation}) waits for nothing")
    return found

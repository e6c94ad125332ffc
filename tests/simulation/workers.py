"""TASKS and its workers, made of plain lists: a dispatch stands until it is acknowledged or taken back, and is delivered as often
as need be. What a worker says of an attempt follows from what the attempt is for."""

from datetime import datetime
from random import Random
from typing import Any, NamedTuple

import msgspec

from esexec.domain import reports as r
from esexec.domain.cached import CachedFrom
from esexec.domain.errors import ErrorInfo
from esexec.domain.messages import Dispatch


class Attempt(NamedTuple):
    """Which attempt of which step of which execution."""

    execution: str
    step: str
    number: int = 1
    run: int = 1

    @property
    def id(self) -> str:
        return f"{self.run}-{self.number}"


class Queue:
    """See the module."""

    def __init__(self) -> None:
        self.waiting: list[Attempt] = []
        self.held: list[Attempt] = []
        self.messages: dict[Attempt, Dispatch] = {}
        self.numbers: dict[Attempt, int] = {}
        self.last = 0
        self.deliveries: dict[Attempt, int] = {}
        self.dispatched: dict[Attempt, int] = {}
        """How often a worker may have begun it."""
        self.told: set[Attempt] = set()
        self.withdrawn: set[Attempt] = set()
        """Held, and deleted meanwhile."""
        self.delivered: set[int] = set()
        """The numbers of all dispatches that a worker had."""
        self.delivered_attempts: set[Attempt] = set()
        self.at_once: list[Attempt] = []
        """Attempts that a second worker began while a first one was at it."""
        self.asking: set[Attempt] = set()
        """Handlers that wait for their before-image to be kept."""
        self.images: dict[Attempt, Any] = {}

    def add(self, attempt: Attempt, message: Dispatch) -> None:
        """A dispatch, unless it stands already. (Whoever holds one that was deleted goes on with it.)"""
        if not self.number_of(attempt):
            self.waiting.append(attempt)
            self.withdrawn.discard(attempt)
            self.last += 1
            self.messages[attempt], self.numbers[attempt] = message, self.last
            self.deliveries[attempt] = 0
            self.dispatched[attempt] = self.dispatched.get(attempt, 0) + 1

    def take(self, attempt: Attempt) -> int:
        """A worker gets it; how many had it before."""
        if attempt in self.held:
            self.at_once.append(attempt)
        self.waiting.remove(attempt)
        self.held.append(attempt)
        self.deliveries[attempt] += 1
        self.delivered.add(self.numbers[attempt])
        self.delivered_attempts.add(attempt)
        self.asking.discard(attempt)
        return self.deliveries[attempt] - 1

    def lose(self, attempt: Attempt) -> None:
        """Its worker is silent for too long: another will get it, unless it was taken back, or waits already."""
        self.held.remove(attempt)
        if attempt not in self.withdrawn and attempt not in self.waiting:
            self.waiting.append(attempt)

    def acknowledge(self, attempt: Attempt) -> None:
        if attempt in self.held:
            self.held.remove(attempt)

    def number_of(self, attempt: Attempt) -> int:
        """The number of the stored dispatch; 0: there is none."""
        return self.numbers[attempt] if self.stands(attempt) and attempt not in self.withdrawn else 0

    def in_hand(self, attempt: Attempt) -> bool:
        """Whether a worker says that it has it, asked by an executor."""
        return attempt in self.held

    def had(self, number: int) -> bool:
        """Whether any worker ever had this very dispatch."""
        return number in self.delivered

    def delete(self, attempt: Attempt, number: int) -> bool:
        """Delete this very dispatch: it is not handed out any more. Whether it was there."""
        if self.number_of(attempt) != number:
            return False
        if attempt in self.waiting:
            self.waiting.remove(attempt)
            self.dispatched[attempt] -= not self.had(number)
        else:
            self.withdrawn.add(attempt)
        return True

    def tell(self, attempt: Attempt) -> None:
        self.told.add(attempt)

    def stands(self, attempt: Attempt) -> bool:
        return attempt in self.waiting or attempt in self.held


def _failed(code: str, at: datetime, **fields: Any) -> r.Failed:
    error = ErrorInfo(type="execution_error", code=code, message="m", **fields)
    return r.Failed(error=error, started_at=at, ended_at=at, worker="w")


def report_of(outcome: str, attempt: Attempt, at: datetime, times: int) -> r.Report:
    """What a worker says; `times`: how often the attempt was done, so that no two outputs are the same."""
    match outcome:
        case "ok" | "ok with vars":
            news = {f"v{times}": f"{attempt.step} {attempt.id}"} if outcome == "ok with vars" else {}
            return r.Completed(
                started_at=at, ended_at=at, output={"did": f"{attempt.step} {attempt.id} {times}"}, vars=news, worker="w"
            )
        case "found":
            source = CachedFrom(key="f00d", execution_id="other", step=attempt.step, time=at)
            output = {"found": f"{attempt.step} {attempt.id} {times}"}
            return r.Completed(started_at=at, ended_at=at, output=output, worker="w", cached=source)
        case "fail":
            return _failed("BROKEN", at)
        case "fatal":
            return _failed("FATAL", at, retryable=False)
        case "hopeless":
            return _failed("HOPELESS", at, retryable=False, recoverable=False)
        case "rejected":
            error = ErrorInfo(type="validation_error", code="unknown_task", message="m", retryable=True)
            return r.Rejected(error=error, ended_at=at, worker="w")
        case "timeout":
            return r.TimedOut(started_at=at, ended_at=at, ended="cancelled")
        case "stopped":
            return r.Stopped(started_at=at, ended_at=at, ended="cancelled")
        case "stopped early":
            return r.Stopped()
        case "started":
            return r.Started(started_at=at, worker="w")
        case "nonsense":
            return r.Completed(started_at=at, ended_at=at, output={"action": "fly"}, worker="w")
        case _:
            advice: dict[str, Any] = {"success": outcome != "no luck", "action": "retry", "message": "so"}
            if outcome != "no luck":
                advice |= {"action": outcome, "new_state": {"variables": {"advised": outcome}}}
            return r.Completed(started_at=at, ended_at=at, output=advice, worker="w")


_OUTCOMES: dict[str, list[str]] = {
    "task": ["ok", "ok", "ok", "found", "ok with vars", "fail", "fatal", "hopeless", "rejected", "timeout"],
    "compensation": ["ok", "ok", "ok", "ok with vars", "fail", "fatal", "rejected", "timeout"],
    "recovery": [
        "retry",
        "retry",
        "retry",
        "skip",
        "fallback",
        "abort",
        "checkpoint_restore",
        "no luck",
        "nonsense",
        "fail",
        "timeout",
    ],
}
_OUTCOMES["fallback"] = _OUTCOMES["task"]


def some_outcome(chance: Random, purpose: str) -> str:
    """Mostly it works."""
    return chance.choice(_OUTCOMES[purpose])


read_dispatch = msgspec.json.Decoder(Dispatch).decode

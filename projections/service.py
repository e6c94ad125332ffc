"""Answers questions over NATS, on `esexec.<ns>.query.<question>`: from the views, and from the log.

A question that cannot be read, or asks for what cannot be, has an error as its answer, with a code and a hint.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from eventsourcing.persistence import PersistenceError

from esexec.domain.errors import Unavailable, ValidationError
from esexec.nats.services import Answerer
from projections.asks import Ask, AskStatus, CountExecutions, ListAlerts, ListExecutions, ListTasks, Projections
from projections.feed import EventFeed
from projections.projection import Questioned
from projections.queries import count_executions, list_alerts, list_executions, list_tasks
from projections.runner import Runner
from projections.statistics_asks import AskDurations, AskStatistics, AskTaskStatistics
from projections.statistics_queries import durations, statistics, task_statistics
from projections.view import View

A = TypeVar("A", bound=Ask)
OF_EXECUTIONS: Questioned = {
    "executions.list": (ListExecutions, list_executions),
    "executions.count": (CountExecutions, count_executions),
    "tasks.list": (ListTasks, list_tasks),
}
OF_ALERTS: Questioned = {"alerts.list": (ListAlerts, list_alerts)}
OF_STATISTICS: Questioned = {
    "stats": (AskStatistics, statistics),
    "task_stats": (AskTaskStatistics, task_statistics),
    "durations": (AskDurations, durations),
}

STATUS = "projections"
"""The question that every process answers for itself."""
_PATIENCE_S = 5.0
"""So long it is waited for a position that is asked for."""
_encode = msgspec.json.Encoder().encode


class Questions:
    """The endpoints over these runners, by their names; `feed`: what else is told how it is."""

    def __init__(self, runners: Mapping[str, Runner], feed: EventFeed | None = None) -> None:
        self._runners, self._feed = runners, feed

    def endpoints(self) -> dict[str, Answerer]:
        """What is answered: questions about views that are not kept here are not. Raises ValidationError (`name_taken`)."""
        answered = {
            STATUS: self._of(AskStatus, self._status),
            **self._over("executions", OF_EXECUTIONS),
            **self._over("alerts", OF_ALERTS),
            **self._over("statistics", OF_STATISTICS),
        }
        for name, runner in self._runners.items():
            questions = runner.projection.questions
            if taken := sorted(answered.keys() & questions):
                raise ValidationError(f"{name}: {taken[0]} is answered already", code="name_taken", hint="rename the question")
            answered |= self._over(name, questions)
        return answered

    def _over(self, name: str, questions: Questioned) -> dict[str, Answerer]:
        """Questions to the view of one projection."""
        if (runner := self._runners.get(name)) is None:
            return {}
        return {question: self._of(kind, _asking(runner, answer)) for question, (kind, answer) in questions.items()}

    def _of(self, kind: type[A], answer: Callable[[A], Any]) -> Answerer:
        decoder = msgspec.json.Decoder(kind)

        async def answered(data: bytes) -> bytes:
            try:
                ask = decoder.decode(data or b"{}")
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise ValidationError(f"the question cannot be read: {error}", code="undecodable") from error
            return _encode(await answer(ask))

        return answered

    async def _status(self, ask: AskStatus) -> Projections:
        said = await asyncio.gather(*(asyncio.to_thread(runner.status) for runner in self._runners.values()))
        return Projections(projections=[*said, *([self._feed.status()] if self._feed is not None else [])])


def _asking(runner: Runner, answer: Callable[[View, Any], Any]) -> Callable[[Any], Any]:
    async def asked(ask: Ask) -> Any:
        if ask.after:
            await _reached(runner, ask.after)
        try:
            return await asyncio.to_thread(answer, runner.view, ask)
        except PersistenceError as error:
            message = f"the database of {runner.name} does not answer: {error}"
            raise Unavailable(message, code="no_database", hint="`esexec projection ls` tells how it is; ask again") from error

    return asked


async def _reached(runner: Runner, position: int) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await runner.reached(position)
        if runner.position >= position:
            return
    except TimeoutError:
        pass
    raise Unavailable(
        f"{runner.name} has come to position {runner.position}, not to {position} within {_PATIENCE_S:g} s",
        code="not_yet",
        hint="`esexec projection ls` tells how it is",
    )

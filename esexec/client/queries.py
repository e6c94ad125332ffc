"""Asking read models: one request, one answer, over NATS. What is asked and answered is said in `projections.asks`."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import EnumMeta
from typing import Any, Literal, TypedDict, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from esexec.domain.errors import ErrorInfo, Unavailable, ValidationError, to_exception
from esexec.domain.explain import did_you_mean
from esexec.nats.connection import Connection, Msg
from esexec.nats.subjects import Subjects
from projections.asks import Ask, ListAlerts, ListExecutions, ListTasks, Projections, Scalar
from projections.statistics_asks import AskStatistics, AskTaskStatistics, By, TaskBy

T = TypeVar("T")

ASK_S = 10.0
"""So long an answer is waited for: more than whoever answers waits for a position."""
_UNKNOWN, _AT = re.compile("unknown field `([^`]*)`"), re.compile(r"at `\$\.(\w+)")
_UNAVAILABLE = frozenset({"not_yet", "no_database"})
_NO_PROJECTIONS = "nobody answers questions that are asked of projections"


class _Refusal(msgspec.Struct):
    error: ErrorInfo


class Conditions(TypedDict, total=False):
    """The fields of `ListExecutions`; `status` also as a single one, by its name."""

    status: str | Iterable[str]
    name: str
    plan_id: str
    metadata: Mapping[str, Scalar]
    since: datetime
    until: datetime
    limit: int
    cursor: str | None
    after: int


class TaskConditions(TypedDict, total=False):
    """The fields of `ListTasks`; `status` also as a single one, by its name."""

    status: str | Iterable[str]
    name: str
    execution_id: str
    plan_id: str
    since: datetime
    until: datetime
    limit: int
    cursor: str | None
    after: int


class AlertConditions(TypedDict, total=False):
    """The fields of `ListAlerts`."""

    state: str
    alert_id: str
    execution_id: str
    since: datetime
    until: datetime
    limit: int
    cursor: str | None
    after: int


class StatisticsConditions(TypedDict, total=False):
    """The fields of `AskStatistics`."""

    name: str
    plan_id: str
    since: datetime
    until: datetime
    by: By
    after: int


class TaskStatisticsConditions(TypedDict, total=False):
    """The fields of `AskTaskStatistics`."""

    name: str
    since: datetime
    until: datetime
    by: TaskBy
    after: int


class Queries:
    """`client.queries`: any question by its name."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self._connection, self._subjects = connection, subjects

    async def ask(self, question: str, ask: Ask, answer: type[T], *, timeout: float = ASK_S) -> T:
        """Ask, and wait for the answer. Raises what that says is wrong, and Unavailable (`no_projections`)."""
        try:
            message = await self._connection.request(self._subjects.query(question), msgspec.json.encode(ask), timeout)
        except Unavailable as error:
            raise _nobody(error) from None
        return _answered(message, answer)

    async def projections(self) -> Projections:
        """How the projections are, by each process that keeps them, of each projection the one that works first.

        Raises Unavailable (`no_projections`)."""
        try:
            messages = await self._connection.gather(self._subjects.query("projections"), b"{}", ASK_S)
        except Unavailable as error:
            raise _nobody(error) from None
        found = [one for message in messages for one in _answered(message, Projections).projections]
        found.sort(key=lambda one: (one.name, one.state == "standby", one.host))
        return Projections(projections=found)


def _nobody(error: Unavailable) -> Unavailable:
    hint = "is a process of them running? (esexec projections)"
    return Unavailable(f"{_NO_PROJECTIONS}: {error.message}", code="no_projections", hint=hint)


def _answered(message: Msg, answer: type[T]) -> T:
    if message.headers and "Nats-Service-Error-Code" in message.headers:
        info = msgspec.json.decode(message.data, type=_Refusal).error
        raise to_exception(info, otherwise=Unavailable if info.code in _UNAVAILABLE else None)
    return msgspec.json.decode(message.data, type=answer)


def executions_asked(conditions: Conditions) -> ListExecutions:
    """The question for these conditions. Raises ValidationError (`bad_condition`)."""
    return _asked(ListExecutions, dict(conditions))


def tasks_asked(conditions: TaskConditions) -> ListTasks:
    """The question for these conditions. Raises ValidationError (`bad_condition`)."""
    return _asked(ListTasks, dict(conditions))


def alerts_asked(conditions: AlertConditions) -> ListAlerts:
    """The question for these conditions. Raises ValidationError (`bad_condition`)."""
    return _asked(ListAlerts, dict(conditions))


def statistics_asked(conditions: StatisticsConditions) -> AskStatistics:
    """The question for these conditions. Raises ValidationError (`bad_condition`)."""
    return _asked(AskStatistics, dict(conditions))


def task_statistics_asked(conditions: TaskStatisticsConditions) -> AskTaskStatistics:
    """The question for these conditions. Raises ValidationError (`bad_condition`)."""
    return _asked(AskTaskStatistics, dict(conditions))


def _asked(kind: type[T], conditions: dict[str, Any]) -> T:
    status = conditions.get("status")
    if status is not None:
        conditions["status"] = [status] if isinstance(status, str) else list(status)
    for name in ("since", "until"):
        if isinstance(when := conditions.get(name), datetime) and when.tzinfo is None:
            conditions[name] = when.astimezone()
    try:
        return msgspec.convert(conditions, kind)
    except msgspec.ValidationError as error:
        hint = _hint(kind, str(error))
        raise ValidationError(f"this cannot be asked for: {error}", code="bad_condition", hint=hint) from None


def _hint(kind: type[Any], problem: str) -> str:
    """What there is instead of what was said."""
    fields = get_type_hints(kind)
    if (unknown := _UNKNOWN.search(problem)) is not None:
        return did_you_mean(unknown[1], fields) or f"see {kind.__name__}"
    at = _AT.search(problem)
    said = fields.get(at[1]) if at is not None else None
    choices = [str(choice) for part in (said, *get_args(said)) for choice in _choices(part)]
    if choices:
        return f"one of {', '.join(choices)}"
    return "a datetime" if datetime in get_args(said) else f"see {kind.__name__}"


def _choices(said: Any) -> Iterable[Any]:
    if isinstance(said, EnumMeta):
        members: Mapping[str, Any] = said.__members__
        return members.values()
    return get_args(said) if get_origin(said) is Literal else ()

"""Every subject of a namespace, and the messages that travel there.

The subjects are made by the builders that the engine uses; names in braces stand for what differs.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple, get_args, get_type_hints

import msgspec

from esexec.cloudevents import CloudEvent, Position
from esexec.domain import commands as c
from esexec.domain import messages as m
from esexec.domain import reports as r
from esexec.domain.alerts import Alert
from esexec.domain.cached import CachedResult
from esexec.domain.commit import Commit
from esexec.domain.errors import ErrorInfo
from esexec.domain.kept_alerts import ALERTS_ENTITY
from esexec.domain.kept_plans import PLANS_ENTITY
from esexec.domain.namespace import SETTINGS_ENTITY
from esexec.domain.sharing import requests as s
from esexec.nats.subjects import Subjects
from projections import service
from projections.asks import AlertsPage, AskStatus, ExecutionsPage, Projections, TasksPage

Action = Literal["receive", "send"]
"""What esexec (its executors and projections) does with the messages of a channel."""


class Message(NamedTuple):
    """A kind of message. `kind`: what its JSON is; None: it has no body. `headers`: those it has or may have, and what for."""

    name: str
    kind: Any
    summary: str = ""
    headers: dict[str, str] = {}


class Channel(NamedTuple):
    """A subject, with names in braces for what differs. `stream`: the one that keeps what is published there, by its short name;
    None: nothing is kept. `answered_on`: the name of the channel on which who publishes here is answered."""

    name: str
    address: str | None
    action: Action
    about: str
    messages: tuple[Message, ...]
    stream: str | None = None
    answered_on: str | None = None

    @property
    def parameters(self) -> list[str]:
        """The names in braces."""
        return re.findall(r"\{(\w+)\}", self.address or "")

    def holds(self, subject: str) -> bool:
        """Whether this subject is of this channel."""
        if self.address is None:
            return False
        pattern = re.sub(r"\\\{\w+\\\}", "[^.]+", re.escape(self.address))
        return re.fullmatch(pattern, subject) is not None


class QueryError(msgspec.Struct, kw_only=True):
    """A question that cannot be answered. The code stands in the header `Nats-Service-Error-Code` as well."""

    error: ErrorInfo


PARAMETERS: Final = {
    "namespace": "The namespace: `default` unless said otherwise. An id that does not begin with `_`.",
    "execution": "The execution's id: 1 to 64 letters, digits, `-` and `_`; not `_` first.",
    "entity": "An execution, or (with `_` first) something that executions share.",
    "command_id": "The `id` of the command that is answered.",
    "n": "The number of a commit in its history, from 1 without gaps.",
    "queue": "The queue, `default` unless the step, the task or a setting says otherwise.",
    "priority": "0 to 10, the higher the sooner; 5 unless said otherwise.",
    "step": "The id of the step.",
    "run": "How often the execution was started: 1, and one more with each retry and restore.",
    "attempt": "The number of the attempt within the run, from 1.",
    "type": "The event's type, as in its history: `task_failed`.",
    "alert_id": "The id of this occurrence of an alert.",
    "verb": "What it was: a command's verb, `report`, `grant`, …",
    "hash": "What the result is found by.",
    "timer": "The version of the event that set the timer; or `look`.",
}
"""What the names in braces mean."""

_NAMES = Subjects("ns")
_HOMES: Final = {
    kind: home
    for kinds, home in (
        (c.SettingsCommand, SETTINGS_ENTITY),
        (c.PutPlan, PLANS_ENTITY),
        (c.PoolsCommand, s.POOLS_ENTITY),
        (c.AlertsCommand, ALERTS_ENTITY),
    )
    for kind in get_args(kinds) or (kinds,)
}
"""The entity that a command is of, where it is not an execution."""


def _at(build: Callable[..., str], *tokens: str) -> str:
    return build(*tokens).replace("esexec.ns.", "esexec.{namespace}.", 1)


def _of(*kinds: Any, **headers: str) -> tuple[Message, ...]:
    return tuple(Message(kind.__name__, kind, _first_sentence(kind), headers) for kind in kinds)


def _first_sentence(kind: Any) -> str:
    return re.split(r"(?<=\.)\s|\n\n", (kind.__doc__ or "").strip(), maxsplit=1)[0].replace("\n    ", " ")


def _empty(name: str, summary: str, **headers: str) -> tuple[Message, ...]:
    return (Message(name, None, summary, {name.replace("_", "-"): what for name, what in headers.items()}),)


# The channels ----------------------------------------------------------------------------------------------------------


def _commands() -> Iterable[Channel]:
    for verb, kind in c.VERBS.items():
        address = _at(_NAMES.command, _HOMES.get(kind, "{execution}"), verb)
        yield Channel(f"cmd.{verb}", address, "receive", _first_sentence(kind), _of(kind), "COMMANDS", "reply")


def _of_clients() -> Iterable[Channel]:
    yield Channel(
        "reply",
        _at(_NAMES.reply, "{entity}", "{command_id}"),
        "send",
        "What became of a command. Subscribe before it is published.",
        _of(m.Answer),
    )
    yield Channel(
        "commit",
        _at(_NAMES.commit, "{entity}", "{n}"),
        "send",
        "What has happened, told once it is stored, at most once. A gap in `n` is filled from the log.",
        _of(Commit),
    )
    yield Channel(
        "log",
        _at(_NAMES.log, "{entity}", "{n}"),
        "send",
        "The log. Only executors publish here, and nobody subscribes; it is read by direct gets.",
        _of(Commit),
        "LOG",
    )
    told = _of(CloudEvent, **{"content-type": "`application/cloudevents+json`"})
    yield Channel("event", _at(_NAMES.event, "{type}", "{entity}"), "send", "The feed: each event, once.", told, "EVENTS")
    yield Channel("alert", _at(_NAMES.alert, "{alert_id}"), "send", "An alert was triggered, or is over.", _of(Alert), "EVENTS")


def _of_workers() -> Iterable[Channel]:
    attempt = ("{execution}", "{queue}", "{step}", "{run}", "{attempt}")
    task = ("{queue}", "{priority}", "{execution}", "{step}", "{run}", "{attempt}")
    yield Channel(
        "task",
        _at(_NAMES.task, *task),
        "send",
        "An attempt that waits for a worker: pulled from the consumer `<queue>_p<priority>` of TASKS.",
        _of(m.Dispatch),
        "TASKS",
    )
    yield Channel(
        "report", _at(_NAMES.report, *attempt), "receive", "What became of an attempt.", _of(*get_args(r.Report)), "INBOX"
    )
    signals: dict[str, tuple[Any, str]] = {
        "cancel": (m.CancelSignal, "Stop this attempt. May come more than once, or not at all."),
        "before": (m.ImageSignal, "The before-image that stands, in answer to a `before` report."),
        "held": (m.WhoHas, "Who has this attempt? The worker that has it answers on the reply subject, with anything."),
    }
    for kind, (told, about) in signals.items():
        yield Channel(f"live.{kind}", _at(_NAMES.live, "{execution}", kind), "send", about, _of(told))
    lines: dict[str, tuple[Any, str]] = {
        "progress": (m.ProgressSignal, "How far an attempt is."),
        "log": (m.LogSignal, "A line that a handler tells."),
    }
    for kind, (told, about) in lines.items():
        yield Channel(f"live.{kind}", _at(_NAMES.live, "{execution}", kind), "receive", about, _of(told), "LIVE")
    yield Channel(
        "live.sample",
        _at(lambda: _NAMES.samples),
        "receive",
        "How a worker's process does, each few seconds.",
        _of(m.WorkerSample),
    )
    yield Channel(
        "live.ask",
        _at(lambda: _NAMES.who_is_there),
        "send",
        "Which workers are there?",
        _empty("WhoIsThere", "Every worker that is there answers."),
    )
    yield Channel(
        "live.here",
        _at(lambda: _NAMES.who_is_here),
        "receive",
        "A worker that is there, with its tasks.",
        _of(m.WorkerPresence),
    )
    kept = _of(CachedResult, **{"Nats-TTL": "how long it may serve, `3600s`; left out: until the oldest give way"})
    yield Channel("cache", _at(_NAMES.cache, "{hash}"), "receive", "A result that may serve again.", kept, "CACHE")


def _of_executors() -> Iterable[Channel]:
    requester = ("{execution}", "{step}", "{run}-{attempt}")
    granted = (s.Granted, s.Waiting, s.Denied)
    yield Channel(
        "in.nudge",
        _at(_NAMES.nudge_in, "{entity}"),
        "receive",
        "Repeat everything that is open.",
        _empty("Nudge", "Changes nothing by itself."),
        "INBOX",
    )
    yield Channel(
        "in.acquire",
        _at(_NAMES.acquire, "{entity}", *requester),
        "receive",
        "An attempt asks for a grant.",
        _of(s.Acquire),
        "INBOX",
    )
    yield Channel(
        "in.release",
        _at(_NAMES.release, "{entity}", *requester),
        "receive",
        "It is done, or does not wait any more.",
        _empty("Release", "What was granted is free again."),
        "INBOX",
    )
    yield Channel("in.grant", _at(_NAMES.grant, *requester), "receive", "What it is answered.", _of(*granted), "INBOX")
    yield Channel(
        "in.due",
        _at(_NAMES.due_in, "{entity}", "{timer}"),
        "receive",
        "A timer fired: forwarded by an executor.",
        _empty("Due", "A timer fired."),
        "INBOX",
    )
    yield Channel(
        "in.continue",
        _at(_NAMES.continue_in, "{execution}", "{n}"),
        "receive",
        "The rest of a decision that was cut.",
        _empty("Continue", "Decide the rest."),
        "INBOX",
    )
    yield Channel(
        "timer",
        _at(_NAMES.timer, "{entity}", "{timer}"),
        "send",
        "A timer that waits. Again: it is replaced.",
        _empty(
            "Timer",
            "A message schedule of the server.",
            Nats_Schedule="`@at <time>`",
            Nats_Schedule_Target="the subject of channel `due`",
        ),
        "TIMERS",
    )
    yield Channel(
        "due",
        _at(_NAMES.due, "{entity}", "{timer}"),
        "receive",
        "Where the server puts a timer that fired.",
        _empty("Fired", "A timer fired."),
        "TIMERS",
    )
    yield Channel(
        "event_position",
        _at(lambda: _NAMES.event_position),
        "send",
        "How far in the log the feed has come.",
        (Message("FeedPosition", Position, _first_sentence(Position)),),
        "EVENTS",
    )
    yield Channel(
        "dead",
        _at(_NAMES.dead, "{entity}", "{verb}"),
        "send",
        "What could not be decided, as it was found.",
        (Message("DeadLetter", Any, "The body as it was published, whatever it is.", _DEAD),),
        "DEAD",
    )


_DEAD = {
    "Esexec-Reason": "the code of the error",
    "Esexec-Message": "the error in words, ASCII, one line",
    "Esexec-Subject": "where it was published, and can be published again",
    "Esexec-Time": "since when it is there",
    "Esexec-Cut": "how many bytes the body had, where that was more than fits beside the reason",
}


def _queries() -> Iterable[Channel]:
    for question, (asked, answer) in sorted(questions().items()):
        name = f"query.{question}"
        about = _first_sentence(asked)
        headers = {"Nats-Service-Error-Code": "the code of the error", "Nats-Service-Error": "the error in words"}
        told = Message(ANSWER_NAMES.get(question) or answer.__name__, answer, f"The answer to `{question}`.")
        refused = Message("QueryError", QueryError, _first_sentence(QueryError), headers)
        yield Channel(name, _at(_NAMES.query, question), "receive", about, _of(asked), None, f"{name}.answer")
        yield Channel(f"{name}.answer", None, "send", "On the request's reply subject.", (told, refused))


_PAGES: Final = {
    "executions.list": ExecutionsPage,
    "tasks.list": TasksPage,
    "alerts.list": AlertsPage,
    service.STATUS: Projections,
}
"""What is answered where the function has it as JSON already."""
ANSWER_NAMES: Final = {"executions.list": "ExecutionsPage", "tasks.list": "TasksPage", "alerts.list": "AlertsPage"}


def questions() -> dict[str, tuple[type[Any], Any]]:
    """By the name of every question that is built in, what is asked, and the type of the answer."""
    found: dict[str, tuple[type[Any], Any]] = {service.STATUS: (AskStatus, _PAGES[service.STATUS])}
    for group in (value for name, value in vars(service).items() if name.startswith("OF_")):
        found |= {name: (ask, _PAGES.get(name) or get_type_hints(answer)["return"]) for name, (ask, answer) in group.items()}
    return found


CHANNELS: Final = (*_commands(), *_of_clients(), *_of_workers(), *_of_executors(), *_queries())
"""All that is published in a namespace. What `esexec.eventsourcing` stores for itself is not among it, nor are the archive's
chunks, of which there are none in this release."""

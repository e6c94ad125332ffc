"""Every subject, stream name and consumer name of a namespace, in one place, and the parsers of received subjects.

Only names live here, no I/O. The builders are on the hot path and check nothing: whoever takes an id from outside checks it
first (`ids.is_token`), so that it cannot widen a subject. The parsers, on the other hand, trust nothing: whatever a
publisher may have written into a subject gives either good tokens or a `ValidationError` with the code `subject_invalid`.
"""

from base64 import urlsafe_b64encode
from typing import Final, NamedTuple

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.ids import is_token, is_user_id

STREAMS: Final = ("COMMANDS", "INBOX", "LOG", "TASKS", "TIMERS", "EVENTS", "DEAD", "ARCHIVE", "LIVE", "CACHE", "OBJECTS")
"""The streams of a namespace; a stream's full name is `ESEXEC_<ns>_<one of these>`, and that of the bucket of objects, as of all
buckets, has `OBJ_` before it."""

DISPENSABLE: Final = ("LIVE", "CACHE")
"""Streams without which everything is done all the same: where the server has no room for them, the engine does without."""

STRAY_CONSUMER: Final = "strays"
"""The consumer, on COMMANDS and on INBOX, of what the server stored as it was published: a subject with a literal `*` or `>`,
which its transform leaves alone."""

TIMER_CONSUMER: Final = "due"
"""The durable consumer of the timers that fired."""


WEBHOOKS_CONSUMER: Final = "webhooks"
"""The durable consumer, on EVENTS, of the alerts that are still to be posted somewhere."""


class InboxSubject(NamedTuple):
    """What a message of INBOX is about. `rest` are the tokens after the kind."""

    execution: str
    kind: str
    rest: tuple[str, ...]


class AttemptSubject(NamedTuple):
    """Which attempt a report is about, and through which queue it was dispatched."""

    queue: str
    step: str
    run: int
    attempt: int


class TaskSubject(NamedTuple):
    """Which attempt a dispatch is for, and its lane (queue and priority)."""

    queue: str
    priority: int
    execution: str
    step: str
    run: int
    attempt: int


class Subjects:
    """The names of one namespace. `namespace` follows the id grammar and does not begin with `_`."""

    __slots__ = ("_prefix", "_skip", "_stream", "archive_stream", "cache_stream", "commands_stream", "dead_stream",
                 "events_stream", "inbox_stream", "live_stream", "log_stream", "namespace", "objects_bucket",
                 "objects_stream", "tasks_stream", "timers_stream")  # fmt: skip

    def __init__(self, namespace: str = "default") -> None:
        if not is_user_id(namespace):
            raise ValidationError(
                f"{namespace[:80]!r} is no name for a namespace",
                code="namespace_invalid",
                hint=f"use 1 to {limits.id_chars} letters, digits, - and _; not _ first",
            )
        self.namespace = namespace
        self._prefix = f"esexec.{namespace}"
        self._skip = len(self._prefix) + 1
        self._stream = f"ESEXEC_{namespace}_"
        self.commands_stream = self.stream("COMMANDS")
        self.inbox_stream = self.stream("INBOX")
        self.log_stream = self.stream("LOG")
        self.tasks_stream = self.stream("TASKS")
        self.timers_stream = self.stream("TIMERS")
        self.events_stream = self.stream("EVENTS")
        self.dead_stream = self.stream("DEAD")
        self.archive_stream = self.stream("ARCHIVE")
        self.live_stream = self.stream("LIVE")
        self.cache_stream = self.stream("CACHE")
        self.objects_bucket = f"{self._stream}OBJECTS"
        self.objects_stream = self.stream("OBJECTS")

    # Streams and consumers -------------------------------------------------------------------------------------------

    def stream(self, name: str) -> str:
        """The full name of one of `STREAMS`."""
        return f"OBJ_{self._stream}{name}" if name == "OBJECTS" else f"{self._stream}{name}"

    @property
    def stream_names(self) -> tuple[str, ...]:
        """The full names of all streams of the namespace, in the order of `STREAMS`."""
        return tuple(self.stream(name) for name in STREAMS)

    @staticmethod
    def partition_consumer(partition: int) -> str:
        """The durable consumer of one partition, on COMMANDS and on INBOX alike."""
        return f"p{partition}"

    @staticmethod
    def lane_consumer(queue: str, priority: int) -> str:
        """The durable consumer of a lane of TASKS. What follows the last `_p` is the priority, so no two lanes share one."""
        return f"{queue}_p{priority}"

    # Objects (ADR-20 of JetStream) -------------------------------------------------------------------------------------

    @property
    def objects_all(self) -> list[str]:
        """All subjects of the bucket."""
        return [f"$O.{self.objects_bucket}.C.>", f"$O.{self.objects_bucket}.M.>"]

    def object_info(self, name: str) -> str:
        """Where an object is described."""
        return f"$O.{self.objects_bucket}.M.{urlsafe_b64encode(name.encode()).decode()}"

    def object_chunks(self, nuid: str) -> str:
        """Where the chunks of an object are."""
        return f"$O.{self.objects_bucket}.C.{nuid}"

    # COMMANDS --------------------------------------------------------------------------------------------------------

    def command(self, execution: str, verb: str) -> str:
        """Where a client publishes a command."""
        return f"{self._prefix}.cmd.{execution}.{verb}"

    @property
    def commands_all(self) -> str:
        """All commands as they are published."""
        return f"{self._prefix}.cmd.*.*"

    @property
    def stray_commands(self) -> str:
        """Commands that were stored without a partition."""
        return f"{self._prefix}.cmd.>"

    @property
    def stray_inbox(self) -> str:
        """Messages for INBOX that were stored without a partition."""
        return f"{self._prefix}.in.>"

    def commands_partition(self, partition: int) -> str:
        """The commands of one partition as they are stored."""
        return f"{self._prefix}.commands.{partition}.>"

    def command_stored(self, execution: str, verb: str) -> str:
        """Where a command of an execution is stored, whatever its partition: to look for it."""
        return f"{self._prefix}.commands.*.{execution}.{verb}"

    @property
    def commands_transform(self) -> str:
        """What the server makes of `commands_all`."""
        return f"{self._prefix}.commands.{{{{partition({limits.partitions},1)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}"

    def parse_command(self, subject: str) -> tuple[str, str]:
        """(execution, verb) of a stored command."""
        tokens = subject[self._skip :].split(".")
        if len(tokens) != 4 or tokens[0] != "commands" or not is_token(tokens[2]):
            raise _invalid(subject)
        return tokens[2], tokens[3]

    # INBOX -----------------------------------------------------------------------------------------------------------

    def report(self, execution: str, queue: str, step: str, run: int, attempt: int) -> str:
        """Where a worker publishes what became of an attempt."""
        return f"{self._prefix}.in.{execution}.report.{queue}.{step}.{run}-{attempt}"

    def report_stored(self, execution: str, queue: str, step: str, run: int, attempt: int) -> str:
        """Where a report is stored, whatever its partition: to look for it."""
        return f"{self._prefix}.inbox.*.{execution}.report.{queue}.{step}.{run}-{attempt}"

    def due_in(self, execution: str, name: str) -> str:
        """Where an executor forwards a timer that fired."""
        return f"{self._prefix}.in.{execution}.due.{name}"

    def continue_in(self, execution: str, after: int) -> str:
        """Where an executor asks for the rest of the decision that was cut in commit `after`."""
        return f"{self._prefix}.in.{execution}.continue.{after}"

    def acquire(self, entity: str, execution: str, step: str, attempt: str) -> str:
        """Where an attempt asks an entity that executions share for a grant."""
        return f"{self._prefix}.in.{entity}.acquire.{execution}.{step}.{attempt}"

    def release(self, entity: str, execution: str, step: str, attempt: str) -> str:
        """Where it says that it needs the grant no more."""
        return f"{self._prefix}.in.{entity}.release.{execution}.{step}.{attempt}"

    def grant(self, execution: str, step: str, attempt: str) -> str:
        """Where it is answered."""
        return f"{self._prefix}.in.{execution}.grant.{step}.{attempt}"

    def nudge_in(self, execution: str) -> str:
        """Where anyone asks that everything open of an execution be repeated."""
        return f"{self._prefix}.in.{execution}.nudge"

    @property
    def inbox_all(self) -> str:
        """All messages for INBOX as they are published."""
        return f"{self._prefix}.in.*.>"

    def inbox_partition(self, partition: int) -> str:
        """The messages of one partition as they are stored."""
        return f"{self._prefix}.inbox.{partition}.>"

    @property
    def inbox_transform(self) -> str:
        """What the server makes of `inbox_all`."""
        return f"{self._prefix}.inbox.{{{{partition({limits.partitions},1)}}}}.{{{{wildcard(1)}}}}.>"

    def parse_inbox(self, subject: str) -> InboxSubject:
        """What a stored message of INBOX is about."""
        tokens = subject[self._skip :].split(".")
        if len(tokens) < 4 or tokens[0] != "inbox" or not is_token(tokens[2]):
            raise _invalid(subject)
        return InboxSubject(tokens[2], tokens[3], tuple(tokens[4:]))

    @staticmethod
    def parse_attempt(rest: tuple[str, ...]) -> AttemptSubject:
        """Which attempt a report is about, from `parse_inbox(…).rest`."""
        if len(rest) != 3 or not is_token(rest[0]) or not is_token(rest[1]):
            raise _invalid(".".join(rest))
        run, attempt = _run_and_attempt(rest[2])
        return AttemptSubject(rest[0], rest[1], run, attempt)

    # LOG -------------------------------------------------------------------------------------------------------------

    @property
    def log_prefix(self) -> str:
        """What stands before the entity and the number in the subject of a commit."""
        return f"{self._prefix}.log"

    def log(self, execution: str, n: int) -> str:
        """Where the n-th commit of an entity is stored. Only executors publish here; nobody subscribes."""
        return f"{self._prefix}.log.{execution}.{n}"

    def log_all(self, execution: str) -> str:
        """All commits of an entity, for direct gets and for the expected sequence."""
        return f"{self._prefix}.log.{execution}.*"

    @property
    def logs_all(self) -> str:
        """All commits of the namespace as they are stored."""
        return f"{self._prefix}.log.*.*"

    def commit(self, execution: str, n: int) -> str:
        """Where the server repeats the n-th commit of an entity once it is stored."""
        return f"{self._prefix}.commit.{execution}.{n}"

    def commits_of(self, execution: str) -> str:
        """What to subscribe to for the commits of one entity as they are stored."""
        return f"{self._prefix}.commit.{execution}.*"

    @property
    def commits_all(self) -> str:
        """What to subscribe to for all commits of the namespace as they are stored."""
        return f"{self._prefix}.commit.*.*"

    @property
    def commits_transform(self) -> str:
        """Where the server repeats what was stored under `logs_all`."""
        return f"{self._prefix}.commit.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}"

    def parse_commit(self, subject: str) -> tuple[str, int]:
        """(entity, n) of a commit, from its subject in the log or its repetition."""
        tokens = subject[self._skip :].split(".")
        if len(tokens) != 3 or tokens[0] not in ("log", "commit") or not is_token(tokens[1]):
            raise _invalid(subject)
        return tokens[1], _number(tokens[2], subject)

    # TASKS -----------------------------------------------------------------------------------------------------------

    def task(self, queue: str, priority: int, execution: str, step: str, run: int, attempt: int) -> str:
        """Where an attempt waits for a worker."""
        return f"{self._prefix}.task.{queue}.{priority}.{execution}.{step}.{run}-{attempt}"

    def lane(self, queue: str, priority: int) -> str:
        """All attempts that wait on one queue with one priority."""
        return f"{self._prefix}.task.{queue}.{priority}.>"

    def tasks_of(self, execution: str) -> str:
        """All attempts of one execution that wait, on any lane."""
        return f"{self._prefix}.task.*.*.{execution}.*.*"

    @property
    def tasks_all(self) -> str:
        """All attempts that wait."""
        return f"{self._prefix}.task.*.*.*.*.*"

    def parse_task(self, subject: str) -> TaskSubject:
        """Which attempt a dispatch is for."""
        tokens = subject[self._skip :].split(".")
        if len(tokens) != 6 or tokens[0] != "task" or not (is_token(tokens[1]) and is_token(tokens[3]) and is_token(tokens[4])):
            raise _invalid(subject)
        run, attempt = _run_and_attempt(tokens[5])
        return TaskSubject(tokens[1], _number(tokens[2], subject), tokens[3], tokens[4], run, attempt)

    @staticmethod
    def parse_lane(consumer: str) -> tuple[str, int] | None:
        """(queue, priority) of a lane's consumer; None for a consumer that is no lane."""
        queue, found, priority = consumer.rpartition("_p")
        if not found or not is_token(queue) or priority not in _PRIORITIES:
            return None
        return queue, _PRIORITIES[priority]

    # TIMERS ----------------------------------------------------------------------------------------------------------

    def timer(self, execution: str, name: str) -> str:
        """Where a timer waits; publishing again replaces it, purging clears it."""
        return f"{self._prefix}.timer.{execution}.{name}"

    @property
    def timers_all(self) -> str:
        """All timers that wait."""
        return f"{self._prefix}.timer.*.*"

    def due(self, execution: str, name: str) -> str:
        """Where the server puts a timer that fired: the target of `timer(…)`."""
        return f"{self._prefix}.due.{execution}.{name}"

    @property
    def due_all(self) -> str:
        """All timers that fired."""
        return f"{self._prefix}.due.*.*"

    def parse_due(self, subject: str) -> tuple[str, str]:
        """(execution, timer's name) of a timer that fired."""
        tokens = subject[self._skip :].split(".")
        if len(tokens) != 3 or tokens[0] != "due" or not (is_token(tokens[1]) and is_token(tokens[2])):
            raise _invalid(subject)
        return tokens[1], tokens[2]

    # The others ------------------------------------------------------------------------------------------------------

    def event(self, type_: str, execution: str) -> str:
        """Where one event of the public feed is published."""
        return f"{self._prefix}.event.{type_}.{execution}"

    @property
    def events_all(self) -> str:
        """The whole public feed."""
        return f"{self._prefix}.event.*.*"

    @property
    def event_position(self) -> str:
        """Where the feed keeps, beside the events, how far in the log it has come."""
        return f"{self._prefix}.event_position"

    def alert(self, alert_id: str) -> str:
        """Where it is told that an alert was triggered, or is over. `*` to subscribe to all."""
        return f"{self._prefix}.alert.{alert_id}"

    def dead(self, execution: str, verb: str) -> str:
        """Where a message that could not be decided is kept, with the reason."""
        return f"{self._prefix}.dead.{execution}.{verb}"

    @property
    def dead_all(self) -> str:
        """Everything that could not be decided."""
        return self.dead("*", "*")

    def parse_dead(self, subject: str) -> tuple[str, str]:
        """(execution, verb) of a message that could not be decided, from its subject in DEAD."""
        execution, _, verb = subject[self._skip :].removeprefix("dead.").partition(".")
        return execution, verb

    def archive(self, execution: str, chunk: int) -> str:
        """Where a part of a packed history is kept."""
        return f"{self._prefix}.archive.{execution}.{chunk}"

    @property
    def archive_all(self) -> str:
        """All packed histories."""
        return f"{self._prefix}.archive.*.*"

    def live(self, execution: str, kind: str) -> str:
        """Where something is told that is not in the log: progress, log lines, signals. `*` as kind to subscribe to all."""
        return f"{self._prefix}.live.{execution}.{kind}"

    @property
    def samples(self) -> str:
        """Where every worker of the namespace tells how its process does."""
        return self.live("_workers", "sample")

    @property
    def who_is_there(self) -> str:
        """Where one asks which workers there are."""
        return self.live("_workers", "ask")

    @property
    def who_is_here(self) -> str:
        """Where each of them answers."""
        return self.live("_workers", "here")

    @property
    def live_kept(self) -> list[str]:
        """What is told live and kept for a while."""
        return [self.live("*", "progress"), self.live("*", "log")]

    def cache(self, key: str) -> str:
        """Where a result is kept that may serve for another attempt; `key` is a hash."""
        return f"{self._prefix}.cache.{key}"

    @property
    def cache_all(self) -> str:
        """All cached results."""
        return f"{self._prefix}.cache.*"

    @property
    def queries(self) -> str:
        """What the questions to read models begin with."""
        return f"{self._prefix}.query"

    def query(self, question: str) -> str:
        """Where a question to read models is asked."""
        return f"{self._prefix}.query.{question}"

    def stored_stream(self, purpose: str) -> str:
        """The stream of what `esexec.eventsourcing` stores for a purpose; none of `STREAMS`, made when it is first needed."""
        return self.stream(f"STORED_{purpose.upper()}")

    def stored(self, purpose: str, originator: str, version: int | str) -> str:
        """Where one of these events is stored. `*` as version for all of an originator."""
        return f"{self._prefix}.stored.{purpose}.{originator}.{version}"

    def stored_all(self, purpose: str) -> str:
        """All that is stored for a purpose."""
        return f"{self._prefix}.stored.{purpose}.>"

    @property
    def stored_everything(self) -> str:
        """All that is stored for any purpose."""
        return f"{self._prefix}.stored.>"

    def reply(self, execution: str, command_id: str) -> str:
        """Where a command is answered; not stored. `*` as command id to subscribe to all of an execution."""
        return f"{self._prefix}.reply.{execution}.{command_id}"


_PRIORITIES: Final = {str(priority): priority for priority in range(limits.priority_max + 1)}


def _run_and_attempt(token: str) -> tuple[int, int]:
    run, _, attempt = token.partition("-")
    return _number(run, token), _number(attempt, token)


def _number(token: str, subject: str) -> int:
    # Longer numbers are no counts of ours, and a very long one would cost its square to convert.
    if not (token.isascii() and token.isdecimal() and len(token) <= 18):
        raise _invalid(subject)
    return int(token)


def _invalid(subject: str) -> ValidationError:
    return ValidationError(f"{subject[:200]!r} is no subject of esexec", code="subject_invalid")

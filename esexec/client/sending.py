"""Sending a command, and learning what became of it: from its answer, from the commit that carries it out, or from the log."""

from collections.abc import Callable
from functools import partial

from esexec.client.commands import encode_command, has_large_parts
from esexec.client.feed import SILENCE, Asked, Feed, Watch
from esexec.client.handle import Handle
from esexec.client.large import with_objects
from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.errors import (
    EsexecError,
    NotConfirmed,
    Overloaded,
    Refused,
    ValidationError,
    to_exception,
)
from esexec.domain.messages import Answer
from esexec.nats.connection import Connection
from esexec.nats.objects import Objects
from esexec.nats.publisher import STREAM_FULL, TOO_MANY_REQUESTS, Ack, ErrorDetail, Publisher
from esexec.nats.subjects import Subjects


class Sender:
    """See the module. `confirm_s`: how long a command may go unanswered before `NotConfirmed`, which carries `handle_of` its
    entity."""

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        publisher: Publisher,
        feed: Feed,
        objects: Objects,
        *,
        confirm_s: float,
        handle_of: Callable[[str], Handle],
    ) -> None:
        self._connection, self._subjects, self._publisher, self._feed = connection, subjects, publisher, feed
        self._confirm_s, self._handle_of, self._objects = confirm_s, handle_of, objects

    async def send(self, watch: Watch, verb: str, command: c.Command, *, until_end: bool = False) -> Answer | None:
        """Publish a command and wait for its answer; None: a commit carried it out (`until_end`: and it has ended).

        Raises what it was refused with, or `NotConfirmed`.
        """
        data = encode_command(command)
        if len(data) > limits.input_bytes and isinstance(command, c.StartExecution) and has_large_parts(data, command):
            data = encode_command(await with_objects(self._objects, command))
        until_done = isinstance(command, c.PauseExecution)  # nothing is to begin once it has returned
        asked = watch.ask(command.id, self._confirm_s, until_end=until_end, until_done=until_done)
        try:
            subject = self._subjects.command(watch.state.execution_id, verb)
            await self._publisher.send(subject, data, None, partial(_stored, asked))
            got = await asked.future
            if got is SILENCE:
                got = await self._look_for(watch, command, asked.stored)
        finally:
            del watch.asked[command.id]
        if got is not None and got.status in ("refused", "superseded"):
            raise _refusal(got, command)
        return got  # type: ignore[no-any-return]

    async def post(self, entity: str, verb: str, command: c.Command) -> None:
        """Publish a command without waiting for what becomes of it: it is sent until it is stored, or the client is closed."""
        await self._publisher.send(self._subjects.command(entity, verb), encode_command(command))

    async def _look_for(self, watch: Watch, command: c.Command, stored: bool) -> Answer | None:
        """No answer came: perhaps only the message was lost. The log knows."""
        entity = watch.state.execution_id
        try:
            if entity[0] != "_" and self._connection.is_connected:
                await self._feed.catch_up(watch)
                if command.id in watch.state.applied:
                    return None
        except EsexecError:
            pass
        within = f"within {self._confirm_s:g} s"
        if stored:
            error = NotConfirmed(
                f"nobody has answered {within}; the command is durable and will be carried out",
                hint="is an executor running? (esexec executor)",
            )
        else:
            error = NotConfirmed(
                f"the server has not acknowledged the command {within}; it is sent again until it does, or this client is closed",
                code="not_stored",
                hint="whether it was stored is not known; with an idempotency_key it may safely be given again",
            )
        error.handle = self._handle_of(entity)
        raise error


async def _stored(asked: Asked, ack: Ack) -> None:
    """The server has stored a command, or has not."""
    if ack.error is None:
        asked.stored = True
    else:
        asked.refused(not_stored(ack.error))


def not_stored(error: ErrorDetail) -> Refused:
    """What the server's refusal to store a message means."""
    if error.err_code in (STREAM_FULL, TOO_MANY_REQUESTS):
        hint = "try again later: executors take commands out of it (limits.commands_waiting)"
        return Overloaded("the engine's intake is full; nothing was accepted", hint=hint)
    return Refused(f"the server refused the command: {error.description}")


def _refusal(answer: Answer, command: c.Command) -> EsexecError:
    if answer.error is None:
        return Refused(f"the command was {answer.status} by a later one", code=answer.status)
    is_wrong = answer.error.type == "validation_error" and not isinstance(command, c.ControlCommand)
    return to_exception(answer.error, otherwise=ValidationError if is_wrong else Refused)

"""From NATS to the desk: takes messages from every partition, makes envelopes of them, and never lets a bad one stop the others.

A body that cannot be read is answered if it says who asks, and buried otherwise; an unreadable report becomes its attempt's
failure, because somebody waits for that attempt.
"""

import logging
from collections.abc import Awaitable, Callable

import msgspec

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.ids import is_token, is_user_id
from esexec.domain.messages import Answer
from esexec.domain.namespace import SETTINGS_ENTITY
from esexec.domain.shape import check_shape
from esexec.executor.desk import Desk
from esexec.executor.envelope import Content, Envelope
from esexec.nats.connection import Connection, Msg
from esexec.nats.pull import Tap
from esexec.nats.subjects import Subjects

logger = logging.getLogger("esexec.executor")

Take = Callable[[Envelope], Awaitable[None]]

_COMMANDS = {verb: msgspec.json.Decoder(kind).decode for verb, kind in c.VERBS.items()}
_SHARED_VERBS = frozenset({"configure", "announce"})
_report = msgspec.json.Decoder(r.Report).decode
_anything = msgspec.json.Decoder().decode
_UNREADABLE = (msgspec.MsgspecError, ValidationError, UnicodeDecodeError, RecursionError, OverflowError)
_SHALLOW_BYTES = 2 * limits.nesting_depth
"""What is shorter cannot be too deep: every bracket is closed."""
_START_BYTES = limits.plan_bytes + limits.input_bytes + 64 * 1024
_REPORT_BYTES = limits.output_bytes + 64 * 1024
_MAY_SWELL = 64 * 1024
"""From here on it is looked how large a message is as written by us: `1e15` has four bytes, 1000000000000000.0 eighteen."""
_encode = msgspec.json.encode


class Intake:
    """See the module. `settings`: who takes the commands on `_settings`."""

    def __init__(self, connection: Connection, subjects: Subjects, desk: Desk, settings: Take) -> None:
        self._connection, self._subjects, self._desk, self._settings = connection, subjects, desk, settings

    async def on_command(self, message: Msg, tap: Tap) -> None:
        """A message of COMMANDS: `…commands.<partition>.<execution>.<verb>`."""
        tokens = message.subject.split(".")
        entity, verb = tokens[-2], tokens[-1]
        envelope = Envelope(self._connection, tap, message, entity, verb)
        try:
            envelope.content = self._read_command(entity, verb, message.data)
        except _UNREADABLE as error:
            await self._refuse(envelope, error)
            return
        await (self._settings if entity == SETTINGS_ENTITY else self._desk.take)(envelope)

    def _read_command(self, entity: str, verb: str, data: bytes) -> Content:
        decode = _COMMANDS.get(verb)
        if decode is None:
            raise ValidationError(f"there is no verb {verb[:50]!r}", code="unknown_verb", hint=f"verbs: {', '.join(_COMMANDS)}")
        if not (is_user_id(entity) or (entity == SETTINGS_ENTITY and verb in _SHARED_VERBS)):
            raise ValidationError(
                f"{entity[:80]!r} is no execution id",
                code="bad_execution_id",
                hint=f"1 to {limits.id_chars} letters, digits, - and _; not _ first",
            )
        if (verb in _SHARED_VERBS) != (entity == SETTINGS_ENTITY):
            raise ValidationError(f"{verb} is a command of {SETTINGS_ENTITY}, not of an execution", code="wrong_entity")
        if len(data) > _START_BYTES:
            raise ValidationError(
                f"a command of {len(data)} bytes is too large", code="too_large", hint=f"at most {_START_BYTES} bytes"
            )
        command: c.Command = decode(data)
        if not is_token(command.id):
            raise ValidationError("the command's id is no id", code="bad_command_id", hint="letters, digits, - and _")
        _check_depth(data, command)
        if len(data) > _MAY_SWELL and (size := len(_encode(command))) > _START_BYTES:
            raise ValidationError(
                f"a command of {size} bytes as it would be stored", code="too_large", hint=f"at most {_START_BYTES} bytes"
            )
        return command

    async def _refuse(self, envelope: Envelope, error: Exception) -> None:
        code = error.code if isinstance(error, ValidationError) else "undecodable"
        hint = (error.hint if isinstance(error, ValidationError) else None) or "see docs/reference/protocol.md"
        info = ErrorInfo(type="validation_error", code=code, message=_message_of(error), hint=hint)
        asker = _id_in(envelope.data)
        if asker is None or not is_token(envelope.entity):
            logger.warning("buried an unreadable command on %s.%s: %s", envelope.entity, envelope.verb, info.message)
            await self._desk.outbox.bury(envelope, info)
        else:
            refusal = Answer(command_id=asker, execution_id=envelope.entity, status="refused", effective=False, error=info)
            await self._desk.outbox.answer(refusal)
            await envelope.ack()

    async def on_stray(self, message: Msg, tap: Tap) -> None:
        """A message whose subject holds a literal wildcard: it belongs to no partition and means nothing."""
        envelope = Envelope(self._connection, tap, message, "invalid", "invalid")
        info = ErrorInfo(type="validation_error", code="bad_subject", message=f"{message.subject[:200]} means nothing here")
        logger.warning("buried: %s", info.message)
        await self._desk.outbox.bury(envelope, info)

    async def on_inbox(self, message: Msg, tap: Tap) -> None:
        """A message of INBOX: `…inbox.<partition>.<execution>.<kind>.…`."""
        tokens = message.subject.split(".")
        entity, kind, rest = tokens[4], tokens[5], tokens[6:]
        envelope = Envelope(self._connection, tap, message, entity, kind)
        if kind == "report" and len(rest) == 3 and is_user_id(entity):
            envelope.queue, envelope.step, envelope.attempt = rest
            envelope.content = _read_report(message.data)
        elif kind == "due" and len(rest) == 1 and is_user_id(entity):
            envelope.content = r.Due(rest[0])
        elif kind == "continue" and len(rest) == 1 and rest[0].isdecimal() and len(rest[0]) < 19 and is_user_id(entity):
            envelope.content = r.Continue(int(rest[0]))
        elif kind == "nudge" and is_user_id(entity):
            envelope.content = r.Nudge()
        else:
            info = ErrorInfo(type="validation_error", code="bad_subject", message=f"{message.subject[:200]} means nothing here")
            logger.warning("buried: %s", info.message)
            envelope.verb = kind if is_token(kind) else "unknown"
            await self._desk.outbox.bury(envelope, info)
            return
        await self._desk.take(envelope)


def _read_report(data: bytes) -> r.Report:
    """The report; one that cannot be read, or holds more than fits, is the attempt's failure."""
    if len(data) > _REPORT_BYTES:
        return _too_large(len(data))
    try:
        report: r.Report = _report(data)
        _check_depth(data, report)
    except _UNREADABLE as error:
        hint = "see docs/reference/protocol.md"
        return r.Failed(
            error=ErrorInfo(type="internal_error", code="bad_report", message=_message_of(error), hint=hint, retryable=False)
        )
    if len(data) > _MAY_SWELL and (size := len(_encode(report))) > _REPORT_BYTES:
        return _too_large(size)
    return report


def _too_large(size: int) -> r.Failed:
    return r.Failed(
        error=ErrorInfo(
            type="execution_error",
            code="output_too_large",
            message=f"a report of {size} bytes is too large",
            hint=f"an output may have {limits.output_bytes} bytes (limits.output_bytes)",
            retryable=False,
        )
    )


def _check_depth(data: bytes, message: msgspec.Struct) -> None:
    """Only what has brackets enough to be too deep is looked at."""
    if len(data) > _SHALLOW_BYTES and data.count(b"{") + data.count(b"[") > limits.nesting_depth:
        for field in ("input", "context", "metadata", "output", "error"):
            value = getattr(message, field, None)
            check_shape(msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value, path=field)


def _id_in(data: bytes) -> str | None:
    """The command's id, if the body says one at all."""
    try:
        found = _anything(data)
    except _UNREADABLE:
        return None
    asker = found.get("id") if isinstance(found, dict) else None
    return asker if isinstance(asker, str) and is_token(asker) else None


def _message_of(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested deeper than {limits.nesting_depth} levels"
    return error.message if isinstance(error, ValidationError) else f"not understood: {str(error)[:500]}"

"""From NATS to the desk: takes messages from every partition, makes envelopes of them, and never lets a bad one stop the others.

A body that cannot be read is answered if it says who asks, and buried otherwise; an unreadable report becomes its attempt's
failure, because somebody waits for that attempt.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.ids import is_token, is_user_id
from esexec.domain.kept_alerts import ALERTS_ENTITY
from esexec.domain.kept_plans import PLANS_ENTITY
from esexec.domain.messages import Answer
from esexec.domain.namespace import SETTINGS_ENTITY
from esexec.domain.shape import check_shape
from esexec.domain.sharing import requests as s
from esexec.domain.sharing.requests import POOLS_ENTITY, is_shared
from esexec.executor.desk import Desk
from esexec.executor.envelope import Asked, Content, Envelope, GivenBack
from esexec.nats.connection import Connection, Msg
from esexec.nats.pull import Tap
from esexec.nats.subjects import Subjects

logger = logging.getLogger("esexec.executor")

T = TypeVar("T")
Take = Callable[[Envelope], Awaitable[None]]

_COMMANDS = {verb: msgspec.json.Decoder(kind).decode for verb, kind in c.VERBS.items()}
_HOMES = {
    **dict.fromkeys(("configure", "announce", "add_strategy", "remove_strategy"), SETTINGS_ENTITY),
    "put_plan": PLANS_ENTITY,
    **dict.fromkeys(("declare_pool", "remove_pool", "allocate", "renew", "release"), POOLS_ENTITY),
    **dict.fromkeys(("set_alert", "remove_alert"), ALERTS_ENTITY),
}
"""Which entity a verb belongs to; all others belong to executions."""
_report = msgspec.json.Decoder(r.Report).decode
_answer: Callable[[bytes], s.Answer] = msgspec.json.Decoder(s.Granted | s.Waiting | s.Denied).decode
_acquire: Callable[[bytes], s.Acquire] = msgspec.json.Decoder(s.Acquire).decode
_anything = msgspec.json.Decoder().decode
_UNREADABLE = (msgspec.MsgspecError, ValidationError, UnicodeDecodeError, RecursionError, OverflowError)
_SHALLOW_BYTES = 2 * limits.nesting_depth
"""What is shorter cannot be too deep: every bracket is closed."""
_COMMAND_BYTES = limits.plan_bytes + limits.input_bytes + 64 * 1024
"""What a start may have, without the outputs it takes along from another execution."""
_SCHEMAS = "see the schemas of all messages: `esexec protocol export DIR` (docs/reference/protocol.md)"
_REPORT_BYTES = limits.output_bytes + 64 * 1024
"""What a report may have, without the variables that it sets."""
_MAY_SWELL = 64 * 1024
"""From here on it is looked how large a message is as written by us: `1e15` has four bytes, 1000000000000000.0 eighteen."""
_PARTS_MAY_SWELL = limits.vars_bytes // 5
"""The same for a part of a report with the smallest limit."""
_MEASURED_MAY_SWELL = limits.measured_bytes // 5
_encode = msgspec.json.encode


class Intake:
    """See the module. `shared`: who takes the commands of each entity that executions share; `sharing`: other messages."""

    def __init__(self, connection: Connection, subjects: Subjects, desk: Desk, shared: Mapping[str, Take], sharing: Take) -> None:
        self._connection, self._subjects, self._desk, self._shared = connection, subjects, desk, shared
        self._sharing = sharing

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
        await self._shared.get(entity, self._desk.take)(envelope)

    def _read_command(self, entity: str, verb: str, data: bytes) -> Content:
        decode = _COMMANDS.get(verb)
        if decode is None:
            raise ValidationError(f"there is no verb {verb[:50]!r}", code="unknown_verb", hint=f"verbs: {', '.join(_COMMANDS)}")
        home = _HOMES.get(verb)
        if not is_user_id(entity) and entity not in self._shared:
            raise ValidationError(
                f"{entity[:80]!r} is no execution id",
                code="bad_execution_id",
                hint=f"1 to {limits.id_chars} letters, digits, - and _; not _ first",
            )
        if entity != home and (home is not None or entity in self._shared):
            whose = "an execution" if home is None else home
            raise ValidationError(
                f"{verb} is a command of {whose}, not of {entity if entity in self._shared else 'an execution'}",
                code="wrong_entity",
                hint=f"publish it on cmd.{'<execution>' if home is None else home}.{verb}",
            )
        _check_size(len(data), _COMMAND_BYTES + (limits.fork_bytes if verb == "start" else 0))
        command: c.Command = decode(data)
        if not is_token(command.id):
            raise ValidationError("the command's id is no id", code="bad_command_id", hint="letters, digits, - and _")
        if len(data) > _SHALLOW_BYTES:
            _check_depth(data, command)
        if len(data) > _MAY_SWELL:
            _check_parts(command)
        if isinstance(command, c.ReleaseResources) and not command.resource_ids and command.allocation is None:
            raise ValidationError("it says nothing to give back", code="missing", hint="say `resource_ids`, or an `allocation`")
        return command

    async def _refuse(self, envelope: Envelope, error: Exception) -> None:
        code = error.code if isinstance(error, ValidationError) else "undecodable"
        hint = (error.hint if isinstance(error, ValidationError) else None) or _SCHEMAS
        info = ErrorInfo(type="validation_error", code=code, message=_message_of(error), hint=hint)
        asker = _id_in(envelope.data)
        if asker is None or not is_token(envelope.entity):
            logger.warning("buried an unreadable command on %s.%s: %s", envelope.entity, envelope.verb, info.message)
            await self._desk.outbox.bury(envelope, info)
        else:
            refusal = Answer(command_id=asker, execution_id=envelope.entity, status="refused", effective=False, error=info)
            await self._desk.outbox.answer(refusal)
            await envelope.ack()

    async def _read(self, envelope: Envelope, decode: Callable[[bytes], T]) -> T | None:
        """What a message among executors says; one that cannot be read is buried."""
        try:
            return decode(envelope.data)
        except _UNREADABLE as error:
            info = ErrorInfo(type="internal_error", code="undecodable", message=_message_of(error))
            logger.warning("buried an unreadable %s for %s: %s", envelope.verb, envelope.entity, info.message)
            await self._desk.outbox.bury(envelope, info)
            return None

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
        elif kind == "grant" and len(rest) == 2 and is_user_id(entity):
            envelope.step, envelope.attempt = rest
            if (answer := await self._read(envelope, _answer)) is None:
                return
            envelope.content = answer
        elif is_shared(entity) and kind == "acquire" and _is_requester(rest):
            if (acquire := await self._read(envelope, _acquire)) is not None:
                envelope.content = Asked("/".join(rest), acquire)
                await self._sharing(envelope)
            return
        elif is_shared(entity) and (content := _of_shared(kind, rest)) is not None:
            envelope.content = content
            await self._sharing(envelope)
            return
        else:
            info = ErrorInfo(type="validation_error", code="bad_subject", message=f"{message.subject[:200]} means nothing here")
            logger.warning("buried: %s", info.message)
            envelope.verb = kind if is_token(kind) else "unknown"
            await self._desk.outbox.bury(envelope, info)
            return
        await self._desk.take(envelope)


def _of_shared(kind: str, rest: list[str]) -> Content | None:
    """What an entity that executions share is told beside an `acquire`; None: nothing that means anything."""
    if kind == "release" and _is_requester(rest):
        return GivenBack("/".join(rest))
    if kind == "due" and len(rest) == 1:
        return r.Due(rest[0])
    return r.Nudge() if kind == "nudge" else None


def _is_requester(rest: list[str]) -> bool:
    return len(rest) == 3 and all(map(is_token, rest))


def _read_report(data: bytes) -> r.Report:
    """The report; one that cannot be read, or holds more than fits, is the attempt's failure."""
    if len(data) > _REPORT_BYTES + limits.vars_bytes:
        return _too_large(len(data))
    try:
        report: r.Report = _report(data)
        if len(data) > _SHALLOW_BYTES:
            _check_depth(data, report)
    except _UNREADABLE as error:
        return r.Failed(
            error=ErrorInfo(type="internal_error", code="bad_report", message=_message_of(error), hint=_SCHEMAS, retryable=False)
        )
    if len(data) > _MEASURED_MAY_SWELL and getattr(report, "measured", None) is not None:
        size = len(_encode(report.measured))  # type: ignore[union-attr]
        if size > limits.measured_bytes:
            return _cannot_be_kept(
                "metrics_too_large",
                f"metrics of {size} bytes are too large",
                f"at most {limits.measured_bytes} bytes (limits.measured_bytes)",
            )
    return report if len(data) <= _PARTS_MAY_SWELL else _fitting(report)


def _fitting(report: r.Report) -> r.Report:
    """The report, if it is as large as written by us may be."""
    vars_bytes = len(_encode(report.vars)) if isinstance(report, r.Completed | r.Failed) and report.vars else 0
    if vars_bytes > limits.vars_bytes:
        message, hint = f"variables of {vars_bytes} bytes are too large", f"at most {limits.vars_bytes} bytes (limits.vars_bytes)"
        return _cannot_be_kept("vars_too_large", message, hint)
    if isinstance(report, r.Before) and (size := len(_encode(report.image))) > limits.image_bytes:
        message, hint = f"a before-image of {size} bytes is too large", f"at most {limits.image_bytes} bytes (limits.image_bytes)"
        return _cannot_be_kept("image_too_large", message, hint)
    size = len(_encode(report)) - vars_bytes
    return report if size <= _REPORT_BYTES else _too_large(size)


def _too_large(size: int) -> r.Failed:
    hint = f"an output may have {limits.output_bytes} bytes (limits.output_bytes)"
    return _cannot_be_kept("output_too_large", f"a report of {size} bytes is too large", hint)


def _cannot_be_kept(code: str, message: str, hint: str) -> r.Failed:
    return r.Failed(error=ErrorInfo(type="execution_error", code=code, message=message, hint=hint, retryable=False))


def _check_size(size: int, size_max: int, what: str = "a command", limit: str = "") -> None:
    if size > size_max:
        hint = f"at most {size_max} bytes" + (f" (limits.{limit})" if limit else "")
        hint += "; or put it into the object store, and name it as `input_object`" if what == "input" else ""
        raise ValidationError(f"{what} of {size} bytes is too large", code="too_large", hint=hint)


def _check_parts(command: c.Command) -> None:
    """How large a command is as it would be stored, and those of its parts that have a limit of their own."""
    kept_bytes = 0
    if isinstance(command, c.StartExecution) and command.kept:
        kept_bytes = len(_encode(command.kept))
        _check_size(kept_bytes, limits.fork_bytes, "what is kept of another execution,", "fork_bytes")
    elif isinstance(command, c.CreateCheckpoint):
        _check_size(len(_encode(command.metadata)), limits.input_bytes, "metadata", "input_bytes")
    size = len(_encode(command)) - kept_bytes
    _check_size(size, _COMMAND_BYTES)
    if isinstance(command, c.StartExecution) and size > limits.input_bytes:
        for what in ("input", "context", "metadata"):
            _check_size(len(_encode(getattr(command, what))), limits.input_bytes, what, "input_bytes")


def _check_depth(data: bytes, message: msgspec.Struct) -> None:
    """Only what has brackets enough to be too deep is looked at."""
    if data.count(b"{") + data.count(b"[") > limits.nesting_depth:
        for field in ("input", "context", "metadata", "kept", "output", "vars", "image", "error"):
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

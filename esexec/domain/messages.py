"""What the engine tells others: a dispatch for a worker, an answer for a client, a signal for whoever runs an attempt."""

from typing import Any, Literal

import msgspec

from esexec.domain.errors import ErrorInfo


class Dispatch(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """One attempt for a worker. References in `params` are resolved. `timeout_ms` 0 = none.

    `max_attempts`: how many there can be, so that a handler can tell its last. Unknown fields are ignored by workers.
    """

    execution_id: str
    step: str
    task: str
    attempt: int = 1
    run: int = 1
    params: Any = {}
    context: dict[str, Any] = {}
    timeout_ms: int = 30_000
    max_attempts: int = 4
    queue: str = "default"
    priority: int = 5


AnswerStatus = Literal["accepted", "duplicate", "superseded", "refused"]


class Answer(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """What became of a command.

    `execution_id`: the execution that the command was sent to. `original_id`: the execution that stands for it instead,
    when a start's idempotency key belongs to another. `effective`: whether it changed anything (a cancel of an ended
    execution did not).
    """

    command_id: str
    execution_id: str
    status: AnswerStatus
    effective: bool = True
    original_id: str | None = None
    error: ErrorInfo | None = None


class CancelSignal(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """Stop this attempt: sent on `live.<execution>.cancel`, at most once; the durable truth is the history."""

    execution_id: str
    step: str
    attempt: int
    run: int = 1
    reason: str = ""

"""Errors, as values and as exceptions: one wire form, one tree.

    EsexecError                      code, message, hint; `.info` is the wire form
    ├── ValidationError              bad params, plan, id or settings; never retried
    │   ├── UnknownTask              a handler for any task does not know this one: the attempt is rejected
    │   └── PlanInvalid              a plan that cannot be submitted: cycle, unknown reference, …
    ├── ExecutionError               a handler failed (also what handlers raise to say how)
    │   ├── RateLimited              with `retry_after`
    │   ├── ResourceUnavailable      there are no such resources, or they were not free in time
    │   ├── ChainError               a link of a chain failed; with `action`, `error`, `partial_results`
    │   ├── ExecutionCancelled       somebody waited for the output of a cancelled execution
    │   ├── WorkerLost               the attempt's workers died too often
    │   └── ProcessCrashed           the process that ran the handler ended under it
    ├── TaskTimeout                  an attempt ran past its timeout (also a TimeoutError)
    ├── InternalError                a fault of the engine
    ├── Refused                      the engine understood a command and said no
    │   ├── NotFound                 no such execution
    │   ├── Conflict                 the execution id is taken by something else
    │   └── Overloaded               intake is full; try again later
    ├── NotConfirmed                 no answer in time; the command is durable, `.handle` goes on
    ├── AwaitTimeout                 the caller's patience ended, not the execution (also a TimeoutError)
    ├── Unavailable                  no server, or it does not answer
    └── CorruptHistory               the log contradicts itself

`ErrorInfo` is what travels and is stored. `to_exception` and `EsexecError.info` convert both ways without loss of
type, code, message, retryable, stack and context.
"""

from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

ErrorType = Literal["validation_error", "execution_error", "timeout_error", "internal_error"]


class ErrorInfo(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A failure as it is stored in events and sent in answers.

    `retryable`: may the same attempt be repeated by policy? `recoverable`: may a recovery strategy run once retries are
    exhausted? None leaves either to the engine. Durations are milliseconds, times UTC.
    `directive`: what a handler said beside it.
    """

    type: ErrorType
    code: str
    message: str
    hint: str | None = None
    retryable: bool | None = None
    recoverable: bool = True
    task_id: str | None = None
    attempt: int | None = None
    timestamp: datetime | None = None
    retry_after_ms: int | None = None
    context: dict[str, Any] = {}
    exception: str | None = None
    stack: str | None = None
    directive: Any = None

    def __str__(self) -> str:
        return self.message


class EsexecError(Exception):
    """The root. Raised as such only for errors that have no class of their own."""

    type: ClassVar[ErrorType] = "execution_error"
    default_code: ClassVar[str] = "error"

    def __init__(self, message: str = "", *, code: str | None = None, hint: str | None = None, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.context = context
        self._info: ErrorInfo | None = None

    @property
    def info(self) -> ErrorInfo:
        """The wire form. For an exception made from a wire form, that very form."""
        if self._info is None:
            self._info = ErrorInfo(type=self.type, code=self.code, message=self.message, hint=self.hint, context=self.context)
        return self._info

    def __str__(self) -> str:
        text = f"[{self.code}] {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class ValidationError(EsexecError):
    """Something a caller gave is wrong and will stay wrong: never retried."""

    type: ClassVar[ErrorType] = "validation_error"
    default_code = "invalid"


class UnknownTask(ValidationError):
    """There is no handler for a task of this name. Raised by a handler, it rejects the attempt; nothing is tried again."""

    default_code = "unknown_task"

    def __init__(self, name: str = "", *, code: str | None = None, hint: str | None = None, **context: Any) -> None:
        """`name`: of the task; a text with a space in it is taken as the whole message."""
        super().__init__(name if " " in name else f"unknown task: {name}", code=code, hint=hint, **context)


class PlanInvalid(ValidationError):
    """A plan that cannot be submitted. `code` names the rule, `hint` the way out."""

    default_code = "plan_invalid"


class ExecutionError(EsexecError):
    """A handler failed. Raised by handlers to say how: `raise ExecutionError("…", retry=False)`.

    `retry`: True or False decides above any classifier (within `max_retries`); None lets the classifier decide.
    `retry_after`: seconds to wait before the next attempt instead of the back-off. `directive`: whatever whoever reads the error
    is to have beside it, as JSON.

    Also called `TaskError`.
    """

    default_code = "execution_error"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
        hint: str | None = None,
        directive: Any = None,
        **context: Any,
    ) -> None:
        if "retryable" in context:  # as it is called in what is stored: kept as context it would be without effect
            raise TypeError(f"{type(self).__name__} takes retry=, not retryable=")
        super().__init__(message, code=code, hint=hint, **context)
        self.retry = retry
        self.retry_after = retry_after
        self.directive = directive

    @property
    def info(self) -> ErrorInfo:
        info = super().info
        if self.retry is not None:
            info.retryable = self.retry
        if self.retry_after is not None:
            info.retry_after_ms = round(self.retry_after * 1000)
        if self.directive is not None:
            info.directive = self.directive
        return info


TaskError = ExecutionError
"""The name that goes with `@task`."""


class RateLimited(ExecutionError):
    """Somebody else's limit was hit; `retry_after` seconds tell when to try again (HTTP 429, `Retry-After`)."""

    default_code = "rate_limited"


class ResourceUnavailable(ExecutionError):
    """The resources that were asked for do not exist, or were not free in time."""

    default_code = "resource_unavailable"


class ExecutionCancelled(ExecutionError):
    """The execution whose output was awaited was cancelled."""

    default_code = "cancelled"


class ChainError(ExecutionError):
    """A chain failed, or was halted with an error. Code and message are those of the error.

    `action`: the link that failed, or behind which it was halted, by its id. `error`: what it failed with. `partial_results`:
    what the links gave that completed, by their ids.
    """

    def __init__(self, action: str, error: ErrorInfo, partial_results: dict[str, Any]) -> None:
        super().__init__(error.message, code=error.code, hint=error.hint)
        self.action, self.error, self.partial_results = action, error, partial_results
        self.context, self._info = error.context, error
        self.retry = error.retryable
        self.retry_after = None if error.retry_after_ms is None else error.retry_after_ms / 1000

    def __str__(self) -> str:
        return f"{self.action}: {super().__str__()}"


class WorkerLost(ExecutionError):
    """The workers that held this attempt were lost too often (`limits.losses_per_attempt`)."""

    default_code = "WORKER_LOST"


class ProcessCrashed(ExecutionError):
    """The process that ran the handler ended under it: `os._exit`, a signal, no memory left. Nobody knows what it had done."""

    default_code = "PROCESS_CRASHED"


class TaskTimeout(EsexecError, TimeoutError):
    """An attempt ran past its timeout."""

    type: ClassVar[ErrorType] = "timeout_error"
    default_code = "task_timeout"


class InternalError(EsexecError):
    """A fault of the engine, or a message that it could not understand."""

    type: ClassVar[ErrorType] = "internal_error"
    default_code = "internal_error"


class Refused(EsexecError):
    """The engine understood a command and said no; nothing was changed."""

    type: ClassVar[ErrorType] = "validation_error"
    default_code = "refused"


class NotFound(Refused):
    """No execution of that id is known."""

    default_code = "not_found"


class Conflict(Refused):
    """The execution id is taken by an execution of other content."""

    default_code = "conflict"


class Overloaded(Refused):
    """The engine's intake is full; nothing was accepted. Try again later."""

    default_code = "overloaded"


class NotConfirmed(EsexecError):
    """No executor answered in time. The command is durable and will be carried out; `handle` follows it.

    With the code `not_stored` not even the server has: then it is durable only once the client, which keeps sending, reached it.
    """

    type: ClassVar[ErrorType] = "timeout_error"
    default_code = "not_confirmed"

    handle: Any = None


class AwaitTimeout(EsexecError, TimeoutError):
    """The caller's `wait_timeout` ended. The execution was not touched and goes on."""

    type: ClassVar[ErrorType] = "timeout_error"
    default_code = "await_timeout"


class Unavailable(EsexecError):
    """No server, or it does not answer."""

    type: ClassVar[ErrorType] = "internal_error"
    default_code = "unavailable"


class CorruptHistory(EsexecError):
    """The log contradicts itself: a gap, a broken hash, bytes that are no commit."""

    type: ClassVar[ErrorType] = "internal_error"
    default_code = "corrupt_history"


_BY_CODE: dict[str, type[EsexecError]] = {
    kind.default_code: kind
    for kind in (RateLimited, ResourceUnavailable, ExecutionCancelled, WorkerLost, ProcessCrashed, NotFound, Conflict, Overloaded)
} | {
    "unknown_task": UnknownTask,
    "unknown_plan": NotFound,
    "plan_not_ready": Refused,
    "too_many_plans": Refused,
    "too_many_queues": Refused,
    "too_many_pools": Refused,
    "pool_in_use": Refused,
    "unknown_allocation": NotFound,
    "too_many_strategies": Refused,
}
_BY_TYPE: dict[str, type[EsexecError]] = {
    "validation_error": ValidationError,
    "execution_error": ExecutionError,
    "timeout_error": TaskTimeout,
    "internal_error": InternalError,
}


def to_exception(info: ErrorInfo, *, otherwise: type[EsexecError] | None = None) -> EsexecError:
    """The exception for a wire form: by its code, else `otherwise`, else by its type. `.info` is `info` itself."""
    kind = _BY_CODE.get(info.code) or otherwise or _BY_TYPE[info.type]
    error = kind(info.message, code=info.code, hint=info.hint)
    error.context = info.context
    error._info = info
    if isinstance(error, ExecutionError):
        error.retry = info.retryable
        error.retry_after = None if info.retry_after_ms is None else info.retry_after_ms / 1000
        error.directive = info.directive
    return error

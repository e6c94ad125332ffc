"""Recovery strategies: the user's word on what follows from a step's failure, once its attempts have failed.

A strategy is added to a namespace by a client (`client.strategies.add`); its code runs on the workers that have it, as an attempt
of the step. One that throws, times out or returns nonsense has said ABORT.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypedDict, Unpack, cast, overload

import msgspec

from esexec.domain import limits
from esexec.domain.checkpoints import StateView
from esexec.domain.durations import milliseconds
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.flow import Resource
from esexec.domain.ids import is_task_name
from esexec.domain.plan import Plan
from esexec.domain.strategies import EVERY_ERROR, Strategy, pattern_problem
from esexec.tasks.options import Duration


class RecoveryAction(StrEnum):
    """What a strategy can ask for. Whatever cannot be done (no fallback, no checkpoint) fails the step."""

    RETRY = "retry"
    """Try the step again."""
    SKIP = "skip"
    """Leave the step out; what depends on it goes on."""
    FALLBACK = "fallback"
    """Let the step's fallback do it."""
    ABORT = "abort"
    """Fail the step, and end the execution."""
    CHECKPOINT_RESTORE = "checkpoint_restore"
    """Go back to the last checkpoint."""


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """What a strategy returns. `new_state`: its `variables` that differ take the place of the execution's.

    `new_state` may be the context's `state`, or anything that has `variables`.
    """

    success: bool
    action: RecoveryAction
    new_state: Any = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryContext:
    """What a strategy is asked: which step failed, and how; the state of the execution, and its plan.

    `failed_attempt`: the one that ended with `error`. `recoveries`: how often a strategy was asked about this step, this time
    included. `resources`: what open attempts of the execution have of the pools.
    """

    execution_id: str
    step: str
    error: ErrorInfo
    state: StateView
    plan: Plan
    resources: list[Resource]
    recoveries: int
    failed_attempt: int
    run: int = 1


class RecoveryOptions(TypedDict, total=False):
    """What can be said of a strategy; see `RecoveryStrategy`."""

    id: str
    name: str
    description: str
    queue: str
    timeout: Duration
    before_retries: bool


class RecoveryStrategy:
    """A base for strategies: give a subclass an `id` and an `execute`, and what else differs, as attributes or when it is made.

    `applicable_errors`: the error codes that it handles, exact or as globs (`HTTP_5*`), in any case; none: all.
    `timeout` of one call, 0 = none. `before_retries`: it is asked after every failed attempt, not only after the last. `queue`:
    left empty, every worker that has its code is asked, whatever its queues are; with a name only the workers of that queue are.
    Anything else that has these attributes and an `execute` can be a strategy as well.
    """

    id: str = ""
    name: str = ""
    description: str = ""
    applicable_errors: Iterable[str] = ("*",)
    queue: str = ""
    timeout: Duration = "30s"
    before_retries: bool = False

    def __init__(self, *, applicable_errors: Iterable[str] | None = None, **options: Unpack[RecoveryOptions]) -> None:
        if applicable_errors is not None:
            self.applicable_errors = applicable_errors
        for name, value in options.items():
            if name not in RecoveryOptions.__annotations__:
                raise TypeError(f"{type(self).__name__} has no option {name!r}")
            setattr(self, name, value)

    async def execute(self, ctx: RecoveryContext) -> RecoveryResult:
        """Say what follows. It may take its time, up to `timeout`; it may be asked again about the same failure."""
        raise NotImplementedError(f"strategy {self.id or type(self).__name__} has no `execute`")

    @property
    def info(self) -> Strategy:
        """What the namespace keeps of it. Raises ValidationError (`invalid_strategy`) for what cannot be."""
        return info_of(self)

    def __repr__(self) -> str:
        return f"<recovery strategy {self.id}>"


class _Wrapped(RecoveryStrategy):
    """A function, or an object that only has what a strategy needs."""

    def __init__(self, fn: Callable[..., Any], like: Any = None, **options: Any) -> None:
        said = {} if like is None else {name: getattr(like, name) for name in _ATTRIBUTES if hasattr(like, name)}
        super().__init__(**said, **options)
        self.execute = fn  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.execute(*args, **kwargs)


_ATTRIBUTES = (*RecoveryOptions.__annotations__, "applicable_errors")

Advice = Callable[[RecoveryContext], Awaitable[RecoveryResult] | RecoveryResult]


@overload
def recovery(fn: Advice, /) -> RecoveryStrategy: ...
@overload
def recovery(*applicable_errors: str, **options: Unpack[RecoveryOptions]) -> Callable[[Advice], RecoveryStrategy]: ...
def recovery(*applicable_errors: Any, **options: Unpack[RecoveryOptions]) -> Any:
    """Make a recovery strategy of a function: `@recovery("NETWORK_TIMEOUT", "HTTP_5*")`; without codes for every error.

    Its `id` is the function's name, and its description the first paragraph of the docstring, unless something else is given.
    Raises ValidationError (`invalid_strategy`).
    """
    bare = applicable_errors[0] if len(applicable_errors) == 1 and callable(applicable_errors[0]) else None

    def decorate(function: Advice) -> RecoveryStrategy:
        if not callable(function):
            raise ValidationError(f"{function!r} is no function", code="invalid_strategy")
        known: dict[str, Any] = {
            "id": getattr(function, "__name__", ""),
            "description": " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())[: limits.text_chars],
        }
        errors = applicable_errors if applicable_errors and bare is None else ("*",)
        strategy = _Wrapped(function, **{**known, **options}, applicable_errors=errors)
        info_of(strategy)
        return strategy

    return decorate if bare is None else decorate(bare)


def as_strategy(value: Any) -> RecoveryStrategy:
    """The strategy that `value` is: an instance, a subclass that needs no arguments, or an object that has what a strategy needs.

    Raises ValidationError (`invalid_strategy`) for anything else, and for attributes that cannot be.
    """
    if isinstance(value, type) and issubclass(value, RecoveryStrategy):
        value = value()
    if not isinstance(value, RecoveryStrategy):
        execute = getattr(value, "execute", None)
        if isinstance(value, type) or not isinstance(getattr(value, "id", None), str) or not callable(execute):
            raise ValidationError(
                f"{value!r} is no recovery strategy",
                code="invalid_strategy",
                hint="give it id, name, description, applicable_errors and `async def execute(ctx)`; see RecoveryStrategy",
            )
        value = _Wrapped(execute, value)
    info_of(value)
    return cast(RecoveryStrategy, value)


def info_of(strategy: RecoveryStrategy) -> Strategy:
    """See `RecoveryStrategy.info`."""
    if not isinstance(strategy.id, str) or not is_task_name(strategy.id):
        raise ValidationError(
            f"{strategy.id!r} cannot be the id of a recovery strategy",
            code="invalid_strategy",
            hint=f"up to {limits.task_name_chars} of A-Z a-z 0-9 _ . : / -, the first a letter, digit or _",
        )
    errors = strategy.applicable_errors
    try:
        info = msgspec.convert(
            {
                "id": strategy.id,
                "name": strategy.name or strategy.id,
                "description": strategy.description,
                "applicable_errors": (errors,) if isinstance(errors, str) else tuple(errors) or EVERY_ERROR,
                "queue": strategy.queue,
                "timeout_ms": milliseconds(strategy.timeout, name="timeout"),
                "before_retries": strategy.before_retries,
            },
            Strategy,
        )
    except (msgspec.ValidationError, TypeError, ValidationError) as error:
        text, _, path = str(getattr(error, "message", error)).rpartition(" - at `")
        where = f"{path.strip('`$.')}: {text}" if path and text else path or text
        raise ValidationError(f"recovery strategy `{strategy.id}`: {where}", code="invalid_strategy") from error
    if (problem := pattern_problem(info.applicable_errors)) is not None:
        message = f"recovery strategy `{strategy.id}`: {problem.message}"
        raise ValidationError(message, code="invalid_strategy", hint=problem.hint)
    return info


# Built in --------------------------------------------------------------------------------------------------------------


class NetworkTimeoutRecovery(RecoveryStrategy):
    """Tries a step again that failed for the network: after 1 s, then 2 s, then 4 s; the fourth time it aborts.

    The count stands in the variable `retry_count.<step>`. It begins anew when the execution is retried or restored.
    """

    id = "network_timeout_recovery"
    name = "Network Timeout Recovery"
    description = "Retry with exponential backoff for network timeouts"
    applicable_errors = (
        "NETWORK_TIMEOUT", "CONNECTION_REFUSED", "CONNECTION_RESET", "CONNECTION_ABORTED", "CONNECTION_ERROR", "BROKEN_PIPE",
        "HOST_UNREACHABLE", "NETWORK_UNREACHABLE", "NAME_NOT_RESOLVED",
    )  # fmt: skip
    max_retries: ClassVar[int] = 3

    async def execute(self, ctx: RecoveryContext) -> RecoveryResult:
        variable = f"retry_count.{ctx.step}"
        count = ctx.state.variables.get(variable, 0) if ctx.recoveries > 1 else 0
        if count >= self.max_retries:
            message = f"Max retries ({self.max_retries}) exceeded for network timeout"
            return RecoveryResult(False, RecoveryAction.ABORT, message=message)
        delay_ms = 2**count * 1_000
        await asyncio.sleep(delay_ms / 1_000)
        ctx.state.variables[variable] = count + 1
        message = f"Retrying after {delay_ms}ms delay (attempt {count + 1}/{self.max_retries})"
        return RecoveryResult(True, RecoveryAction.RETRY, ctx.state, message)

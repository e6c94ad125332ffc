"""`@task`: a function becomes a handler that a worker can register, and stays the function that it was."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from esexec.domain import limits
from esexec.domain.durations import milliseconds
from esexec.domain.errors import ValidationError
from esexec.domain.ids import is_task_name
from esexec.domain.settings import TaskSettings
from esexec.tasks.binding import Binding
from esexec.tasks.context import Context

P = ParamSpec("P")
R = TypeVar("R")

Duration = str | int | float | timedelta
"""`"30s"`, a number of seconds, or a timedelta."""


class Task(Generic[P, R]):
    """A named handler. Called, it is its function; a worker calls `fn` with what `bind` makes of a dispatch's params.

    `settings` is the task's level of the merge; `description` defaults to the first paragraph of the docstring.
    """

    __name__: str

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        settings: TaskSettings | None = None,
        description: str | None = None,
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        """`local_names` resolve annotations that are strings, beside the function's own globals.

        Raises ValidationError (`invalid_task`) for a function or a name that no worker could use.
        """
        if isinstance(fn, Task) or not callable(fn):
            raise ValidationError(f"{fn!r} is no function", code="invalid_task", hint="decorate an async or sync function once")
        self.fn = fn
        self.name = _checked_name(name if name is not None else getattr(fn, "__name__", ""))
        self.settings = settings if settings is not None else TaskSettings()
        self.description = _checked_description(self.name, description if description is not None else _summary(fn))
        self.is_async = _is_async(self.name, fn)
        functools.update_wrapper(self, fn)
        self._binding: Binding | None = None
        # A type may be defined further down the module; then `prepare` finds it when the task is collected.
        self._bind_to(local_names or {}, may_wait=True)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    @property
    def path(self) -> str | None:
        """Where the function is, `package.module:function`; a step may name the task so. None where that is no task name."""
        path = f"{getattr(self.fn, '__module__', '')}:{getattr(self.fn, '__qualname__', '')}"
        return path if is_task_name(path) else None

    def bind(self, params: Any, context: Context | None = None) -> dict[str, Any]:
        """The keyword arguments for `fn`: `params` (an object, or None for none) by name, converted to the types.

        A parameter annotated `Context` gets `context`. Raises ValidationError (`invalid_params`), which is not retried.
        """
        if self._binding is None:
            self._bind_to({}, may_wait=False)
            assert self._binding is not None
        return self._binding.arguments(params, context)

    def prepare(self) -> None:
        """Make sure that params can be bound. Raises ValidationError (`invalid_task`) if an annotation means nothing."""
        if self._binding is None:
            self._bind_to({}, may_wait=False)

    def _bind_to(self, local_names: Mapping[str, Any], *, may_wait: bool) -> None:
        names = {**getattr(inspect.unwrap(self.fn), "__globals__", {}), **local_names}
        try:
            self._binding = Binding(self.name, self.fn, names)
        except ValidationError:
            raise
        except Exception as error:
            if may_wait and isinstance(error, NameError):
                return
            raise ValidationError(f"task `{self.name}`: its signature cannot be read: {error}", code="invalid_task") from error

    def __repr__(self) -> str:
        return f"<task {self.name}>"


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Duration | None = None,
    max_retries: int | None = None,
    retry_delay: Duration | None = None,
    initial_retry_delay: Duration | None = None,
    max_retry_delay: Duration | None = None,
    max_retry_after: Duration | None = None,
    backoff_multiplier: float | None = None,
    jitter: float | None = None,
    retry_unknown: bool | None = None,
    queue: str | None = None,
    priority: int | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Duration | None = None,
    max_retries: int | None = None,
    retry_delay: Duration | None = None,
    initial_retry_delay: Duration | None = None,
    max_retry_delay: Duration | None = None,
    max_retry_after: Duration | None = None,
    backoff_multiplier: float | None = None,
    jitter: float | None = None,
    retry_unknown: bool | None = None,
    queue: str | None = None,
    priority: int | None = None,
) -> Any:
    """Make a task of a function, async or sync: `@task`, or `@task(max_retries=5, timeout="30s")`.

    Everything but the names is the task's level of the settings (see `TaskSettings`); what is not given is left to the
    other levels. `timeout` is one attempt's, 0 = none. `retry_delay` is another name for `initial_retry_delay`.
    Raises ValidationError: `invalid_task` for the function, `invalid_settings` for the settings.
    """
    settings = _settings(
        {
            "timeout": timeout,
            "initial_retry_delay": _either(retry_delay, initial_retry_delay),
            "max_retry_delay": max_retry_delay,
            "max_retry_after": max_retry_after,
        },
        {
            "max_retries": max_retries,
            "backoff_multiplier": backoff_multiplier,
            "jitter": jitter,
            "retry_unknown": retry_unknown,
            "queue": queue,
            "priority": priority,
        },
    )
    local_names = _names_of_caller()

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return Task(function, name=name, settings=settings, description=description, local_names=local_names)

    return decorate if fn is None else decorate(fn)


def _either(retry_delay: Duration | None, initial_retry_delay: Duration | None) -> Duration | None:
    if retry_delay is not None and initial_retry_delay is not None:
        raise ValidationError("retry_delay and initial_retry_delay are the same setting: give one", code="invalid_settings")
    return initial_retry_delay if retry_delay is None else retry_delay


def _settings(durations: dict[str, Duration | None], others: dict[str, Any]) -> TaskSettings:
    said = {name: value for name, value in others.items() if value is not None}
    for name, value in durations.items():
        if value is not None:
            said[f"{name}_ms"] = milliseconds(value, name=name)
    try:
        return msgspec.convert(said, TaskSettings)
    except msgspec.ValidationError as error:
        text, _, path = str(error).rpartition(" - at `")
        raise ValidationError(f"{path.strip('`$.')}: {text}", code="invalid_settings") from error


def _names_of_caller() -> dict[str, Any]:
    """The local names where `task` is applied: types defined inside a function, for annotations that are strings."""
    frame = sys._getframe(2)
    return dict(frame.f_locals) if frame.f_locals is not frame.f_globals else {}


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not is_task_name(name):
        raise ValidationError(
            f"{name!r} cannot be the name of a task",
            code="invalid_task",
            hint=f"up to {limits.task_name_chars} of A-Z a-z 0-9 _ . : / -, the first a letter, digit or _; give name=",
        )
    return name


def _checked_description(name: str, description: str) -> str:
    if len(description) > limits.text_chars:
        raise ValidationError(
            f"task `{name}`: its description is longer than text_chars = {limits.text_chars}", code="invalid_task"
        )
    return description


def _summary(fn: Callable[..., Any]) -> str:
    text = (inspect.getdoc(fn) or "").split("\n\n")[0]
    return " ".join(text.split())[: limits.text_chars]


def _is_async(name: str, fn: Callable[..., Any]) -> bool:
    call = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
    for candidate in (fn, call):
        if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise ValidationError(
                f"task `{name}` is a generator", code="invalid_task", hint="a handler returns its output, it does not yield"
            )
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call)

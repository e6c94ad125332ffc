"""`@task`: a function becomes a handler that a worker can register, and stays the function that it was."""

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

import msgspec

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.flow import Key, ResourceRequirement
from esexec.domain.flow_reading import SaidKey, SaidRateLimit, SaidResources, read_key, read_requirements
from esexec.domain.ids import is_task_name
from esexec.domain.settings import TaskInfo, TaskSettings
from esexec.tasks.binding import Binding
from esexec.tasks.caching import Cache
from esexec.tasks.context import Context
from esexec.tasks.options import Duration, TaskOptions, read_options
from esexec.tasks.resources import checked_uses

RunIn = Literal["process"]
P = ParamSpec("P")
R = TypeVar("R")
Q = ParamSpec("Q")
S = TypeVar("S")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    from esexec.results import Err, Ok

    Out = TypeVarWithDefault("Out", default=Any, covariant=True)
else:
    Out = TypeVar("Out", covariant=True)


class Returns(Protocol[Out]):
    """A task, for type checkers: what its function returns, or what comes of awaiting that."""

    if TYPE_CHECKING:

        def _output(self) -> Out: ...


class Task(Generic[P, R]):
    """A named handler. Called, it is its function; a worker calls `fn` with what `bind` makes of a dispatch's params.

    `settings` is the task's level of the merge; `description` defaults to the first paragraph of the docstring.
    `compensation` is what undoes the task: a task, or the name of one that some worker has; None if nothing was said.
    `concurrency`: how many steps of it may run at once; `resources`: what an attempt of it needs. `uses`: the resources of its
    worker that it needs; `cache`: for whom its outputs serve again. `run_in`: `process`, or None for where handlers usually run.
    """

    __name__: str
    compensation: "Task[..., Any] | str | None"

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        settings: TaskSettings | None = None,
        description: str | None = None,
        compensate: "Task[..., Any] | str | None" = None,
        concurrency: Key | None = None,
        resources: tuple[ResourceRequirement, ...] = (),
        uses: Iterable[str] = (),
        cache: Cache | None = None,
        run_in: RunIn | None = None,
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
        self.concurrency, self.resources = concurrency, resources
        self.description = _checked_description(self.name, description if description is not None else _summary(fn))
        self.is_async = _is_async(self.name, fn)
        self.uses = checked_uses(self.name, uses)
        self.cache = _checked_cache(self.name, cache)
        self.run_in = _checked_run_in(self.name, run_in, self.uses)
        self.is_prepared = bool(self.uses) or self.cache is not None or self.run_in is not None
        """Whether something has to be done before the handler is called."""
        self.is_method = _is_method(fn)
        """Whether it is a method in a class, which has yet to be bound to an object (see `Handlers`)."""
        functools.update_wrapper(self, fn)
        self.compensation = _checked_compensation(self.name, compensate)
        self._binding: Binding | None = None
        if self.is_method:
            return
        # A type may be defined further down the module; then `prepare` finds it when the task is collected.
        self._bind_to(local_names or {}, may_wait=True)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    if TYPE_CHECKING:

        @overload
        def _output(self: "Task[P, Coroutine[Any, Any, Ok[S]]]") -> S: ...
        @overload
        def _output(self: "Task[P, Coroutine[Any, Any, Ok[S] | Err]]") -> S: ...
        @overload
        def _output(self: "Task[P, Coroutine[Any, Any, S]]") -> S: ...
        @overload
        def _output(self: "Task[P, Ok[S]]") -> S: ...
        @overload
        def _output(self: "Task[P, Ok[S] | Err]") -> S: ...
        @overload
        def _output(self) -> R: ...
        def _output(self) -> Any:
            """See `Returns`."""

    def bound_to(self, owner: object) -> "Task[..., R]":
        """The task of a method, with the method bound to an object."""
        made: Task[..., R] = Task(
            self.fn.__get__(owner),
            name=self.name,
            settings=self.settings,
            description=self.description,
            compensate=self.compensation,
            concurrency=self.concurrency,
            resources=self.resources,
            uses=self.uses,
            cache=self.cache,
            run_in=self.run_in,
        )
        return made

    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> "Task[P, R]": ...
    @overload
    def __get__(self, instance: object, owner: Any = None, /) -> Any: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        """Of an object it is the bound method, so that it is called as any other."""
        return self if instance is None or not self.is_method else functools.partial(self.fn, instance)

    @property
    def path(self) -> str | None:
        """Where the function is, `package.module:function`; a step may name the task so. None where that is no task name."""
        path = f"{getattr(self.fn, '__module__', '')}:{getattr(self.fn, '__qualname__', '')}"
        return path if is_task_name(path) else None

    @property
    def info(self) -> TaskInfo:
        """What a worker announces of the task."""
        undo = self.compensation
        return TaskInfo(
            **msgspec.structs.asdict(self.settings),
            compensate=undo.name if isinstance(undo, Task) else undo,
            concurrency=self.concurrency,
            resources=self.resources,
        )

    @property
    def schema(self) -> dict[str, Any] | None:
        """A JSON Schema of the params that the task takes, as a worker announces it; None where it cannot be told."""
        self.prepare()
        assert self._binding is not None
        schema = self._binding.schema
        if schema is not None and self.description:
            schema = {"description": self.description, **schema}
        return schema

    @overload
    def compensate(self, fn: Callable[Q, S], /) -> "Task[Q, S]": ...
    @overload
    def compensate(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        uses: Iterable[str] = (),
        run_in: RunIn | None = None,
        **settings: Unpack[TaskOptions],
    ) -> "Callable[[Callable[Q, S]], Task[Q, S]]": ...
    def compensate(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        uses: Iterable[str] = (),
        run_in: RunIn | None = None,
        **settings: Unpack[TaskOptions],
    ) -> Any:
        """Make a function the one that undoes this task: `@create.compensate`, or `@create.compensate(max_retries=10)`.

        It becomes a task, called `<task>.compensate` unless `name` says otherwise. A rollback calls it with the params of the
        step and, over them, the fields of its output, by name; what it has no parameter for is left out. It may be called
        more than once. Raises ValidationError: `invalid_task`, also if the task has a compensation; `invalid_settings`.
        """
        said = read_options(settings)
        local_names = _local_names(sys._getframe(1))

        def decorate(function: Callable[Q, S]) -> Task[Q, S]:
            if self.compensation is not None:
                raise ValidationError(f"task `{self.name}` has a compensation: {self.compensation!r}", code="invalid_task")
            undo = Task(
                function,
                name=f"{self.name}.compensate" if name is None else name,
                settings=said,
                description=description,
                uses=uses,
                run_in=run_in,
                local_names=local_names,
            )
            self.compensation = undo
            return undo

        return decorate if fn is None else decorate(fn)

    def bind(self, params: Any, context: Context | None = None, *, loose: bool = False) -> dict[str, Any]:
        """The keyword arguments for `fn`: `params` (an object, or None for none) by name, converted to the types.

        A parameter annotated `Context` gets `context`. `loose`: params that the function has no parameter for are left out.
        Raises ValidationError (`invalid_params`), which is not retried.
        """
        if self._binding is None:
            self._bind_to({}, may_wait=False)
            assert self._binding is not None
        return self._binding.arguments(params, context, loose=loose)

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
        if self.cache is not None and not self._binding.takes_any:
            self.cache.check(self.name, self._binding.names)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    description: str | None = None,
    compensate: Task[..., Any] | str | None = None,
    uses: Iterable[str] = (),
    cache: Cache | None = None,
    run_in: RunIn | None = None,
    timeout: Duration | None = None,
    timeout_growth: float | None = None,
    queue_timeout: Duration | None = None,
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
    rate_limit: SaidRateLimit | None = None,
    concurrency: SaidKey | None = None,
    resources: SaidResources | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    compensate: Task[..., Any] | str | None = None,
    uses: Iterable[str] = (),
    cache: Cache | None = None,
    run_in: RunIn | None = None,
    timeout: Duration | None = None,
    timeout_growth: float | None = None,
    queue_timeout: Duration | None = None,
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
    rate_limit: SaidRateLimit | None = None,
    concurrency: SaidKey | None = None,
    resources: SaidResources | None = None,
) -> Any:
    """Make a task of a function, async or sync: `@task`, or `@task(max_retries=5, timeout="30s")`.

    The names, `compensate`, `concurrency`, `resources`, `uses` and `cache` are the task's own; all else is its level of the
    settings (see `TaskSettings`), and what is not given is left to the other levels. `timeout` is one attempt's, 0 = none.
    `retry_delay` is another name for `initial_retry_delay`. `compensate`: what undoes the task, where it is a task of its own
    (else see `Task.compensate`), or its name. `rate_limit`: how many attempts may begin within a time. `concurrency`: how many
    steps of it may run at once. `resources`: what each attempt needs, as requirements or by type: `{"gpu": 2}`. `uses`: names of
    the worker's resources, of which the handler has one each in `ctx.resources`. `cache`: see `Cache`. `run_in="process"`:
    for what works the processor hard; it runs in a process of its own, which can be killed.
    Raises ValidationError: `invalid_task` for the function, `invalid_cache` for a cache whose key does not fit it,
    `invalid_settings`, and what is refused of rate limits, keys and requirements by the codes that plans have for it.
    """
    settings = read_options(
        {
            "timeout": timeout,
            "timeout_growth": timeout_growth,
            "queue_timeout": queue_timeout,
            "max_retries": max_retries,
            "retry_delay": retry_delay,
            "initial_retry_delay": initial_retry_delay,
            "max_retry_delay": max_retry_delay,
            "max_retry_after": max_retry_after,
            "backoff_multiplier": backoff_multiplier,
            "jitter": jitter,
            "retry_unknown": retry_unknown,
            "queue": queue,
            "priority": priority,
            "rate_limit": rate_limit,
        }
    )
    key = None if concurrency is None else read_key(concurrency, "concurrency", of="steps")
    needs = () if resources is None else read_requirements(resources, "resources", in_seconds=True)
    local_names = _local_names(sys._getframe(1))

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return Task(
            function,
            name=name,
            settings=settings,
            description=description,
            compensate=compensate,
            concurrency=key,
            resources=needs,
            uses=uses,
            cache=cache,
            run_in=run_in,
            local_names=local_names,
        )

    return decorate if fn is None else decorate(fn)


def _local_names(frame: FrameType) -> dict[str, Any]:
    """The local names where a decorator is applied: types defined inside a function, for annotations that are strings."""
    return dict(frame.f_locals) if frame.f_locals is not frame.f_globals else {}


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not is_task_name(name):
        raise ValidationError(
            f"{name!r} cannot be the name of a task",
            code="invalid_task",
            hint=f"up to {limits.task_name_chars} of A-Z a-z 0-9 _ . : / -, the first a letter, digit or _; give name=",
        )
    return name


def _checked_compensation(name: str, compensate: Any) -> Task[..., Any] | str | None:
    if compensate is None or isinstance(compensate, Task) or (isinstance(compensate, str) and is_task_name(compensate)):
        return compensate
    raise ValidationError(
        f"task `{name}`: {compensate!r} cannot undo it",
        code="invalid_task",
        hint="give a task, or the name of one; a function: @my_task.compensate",
    )


def _checked_cache(name: str, cache: Any) -> Cache | None:
    if cache is None or isinstance(cache, Cache):
        return cache
    raise ValidationError(f"task `{name}`: {cache!r:.80} is no cache", code="invalid_task", hint='cache=Cache(ttl="1h")')


def _is_method(fn: Any) -> bool:
    """Whether a function stands in a class, and takes its object first."""
    within, _, _ = getattr(fn, "__qualname__", "").rpartition(".")
    if not inspect.isfunction(fn) or not within or within.endswith("<locals>"):
        return False
    return next(iter(inspect.signature(fn).parameters), None) == "self"


def _checked_run_in(name: str, run_in: Any, uses: tuple[str, ...]) -> RunIn | None:
    if run_in not in (None, "process"):
        raise ValidationError(
            f"task `{name}`: there is no place {run_in!r:.80} to run in",
            code="invalid_task",
            hint='run_in="process", or nothing: then coroutines run on the loop and functions in threads',
        )
    if run_in is not None and uses:
        raise ValidationError(
            f"task `{name}` cannot run in a process of its own and use its worker's resources",
            code="invalid_task",
            hint="let it open what it needs, at the top of its module",
        )
    return run_in  # type: ignore[no-any-return]


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

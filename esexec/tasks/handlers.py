"""Handlers as methods of a class: those with `@task` each for its own task, and `handle_task` for all others.

`worker.tasks` holds the latter under the name `*`, which no task can have.
"""

import inspect
from typing import Any, Final, NoReturn

import msgspec

from esexec.domain.errors import UnknownTask, ValidationError
from esexec.tasks.context import Context
from esexec.tasks.task import Task

ANY_TASK: Final = "*"


class HandledTask(msgspec.Struct, frozen=True):
    """A task as `handle_task` gets it: its `name`, its `input` as plain JSON values, and the context `ctx` of the attempt."""

    name: str
    input: Any
    ctx: Context

    @property
    def id(self) -> str:
        """`execution/step`: what `client.tasks.get` takes."""
        return f"{self.ctx.execution_id}/{self.ctx.step}"

    @property
    def execution_id(self) -> str:
        return self.ctx.execution_id

    @property
    def attempt(self) -> int:
        return self.ctx.attempt


class Handlers:
    """Handlers that belong together. Derive a class, and give it, or an object of it, to a worker, or let it stand in a module of
    tasks (there a class counts that needs no arguments).

    Methods with `@esexec.task` are tasks; their objects share what the object holds. `handle_task`, where the class has one,
    handles every task that the worker has no other handler for, async or sync; it raises `UnknownTask` for what it does not know.
    """

    def handle_task(self, record: HandledTask) -> Any:
        raise UnknownTask(record.name)


class AnyTask(Task[..., Any]):
    """`handle_task` of an object, as the task that it is for a worker."""

    def bind(self, params: Any, context: Context | None = None, *, loose: bool = False) -> dict[str, Any]:
        assert context is not None
        return {self._record: HandledTask(context.task, params, context)}

    @classmethod
    def of(cls, handlers: Handlers) -> "AnyTask":
        """Raises ValidationError (`invalid_task`) for a method that does not take one record."""
        made = cls(handlers.handle_task, name="handle_task")
        names = [*inspect.signature(handlers.handle_task).parameters]
        if len(names) != 1:
            raise ValidationError(
                f"{type(handlers).__qualname__}.handle_task takes {len(names)} arguments",
                code="invalid_task",
                hint="async def handle_task(self, record): …",
            )
        made.name, made._record = ANY_TASK, names[0]
        return made

    _record = "record"

    @property
    def path(self) -> None:
        return None


def tasks_of(handlers: Handlers) -> list[Task[..., Any]]:
    """The tasks that an object of `Handlers` has. Raises ValidationError (`tasks_not_found`) for one that has none."""
    bound: dict[Task[..., Any], Task[..., Any]] = {}
    for kind in reversed(type(handlers).__mro__):
        for name, value in vars(kind).items():
            if isinstance(value, Task) and inspect.getattr_static(type(handlers), name) is value:
                _bind(value, handlers, bound)
    found = list(bound.values())
    if type(handlers).handle_task is not Handlers.handle_task:
        found.append(AnyTask.of(handlers))
    if not found:
        raise ValidationError(
            f"{type(handlers).__qualname__} handles no task",
            code="tasks_not_found",
            hint="give it methods with @esexec.task, or a method handle_task(self, record)",
        )
    return found


def _bind(task: Task[..., Any], owner: Handlers, bound: dict[Task[..., Any], Task[..., Any]]) -> Task[..., Any]:
    """The task with its method bound to an object, and what undoes it likewise."""
    if (known := bound.get(task)) is not None:
        return known
    made = bound[task] = task.bound_to(owner)
    if isinstance(task.compensation, Task) and task.compensation.is_method:
        made.compensation = _bind(task.compensation, owner, bound)
    return made


def made_of(kind: type[Handlers]) -> Handlers:
    """An object of a class that needs no arguments. Raises ValidationError (`invalid_task`) if it does."""
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        _needs(kind, error)
    return kind()


def _needs(kind: type, error: TypeError) -> NoReturn:
    raise ValidationError(
        f"{kind.__qualname__} cannot be made here: {error}", code="invalid_task", hint="give an object of it instead"
    ) from error

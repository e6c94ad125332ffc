"""Expensive things that the handlers of a worker take turns with: how they are declared, and how a handler gets at its own.

A resource is made by a factory, as many times as are needed at once, at most `size`. A task says what it `uses`; its handler is
called once it has one item of each. They are taken in the order of their names, so no two handlers wait for each other.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, Self

from esexec.domain import limits
from esexec.domain.errors import ExecutionError, ValidationError
from esexec.domain.ids import is_user_id
from esexec.tasks.places import at_place


class WorkerResource:
    """A named pool, as it is declared. Called, it is its factory.

    `factory`: a function without arguments, async or sync, that returns an item; or a generator, async or sync (also one that is
    `@contextmanager`), that yields it, and closes it behind the `yield`. What is sync runs in a thread.
    """

    __slots__ = ("factory", "name", "size")

    def __init__(self, name: str, factory: Callable[[], Any], size: int = 1) -> None:
        """Raises ValidationError (`invalid_resource`)."""
        if not isinstance(name, str) or not is_user_id(name):
            raise _invalid(f"{name!r:.80} cannot be the name of a resource", "letters, digits, - and _; not _ first")
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= limits.pool_size:
            raise _invalid(f"resource {name}: {size!r:.80} is no size", f"1 to {limits.pool_size} (limits.pool_size)")
        if not callable(factory) or _needed(factory):
            raise _invalid(f"resource {name}: {factory!r:.80} makes nothing", "give a function without arguments")
        self.name, self.factory, self.size = name, factory, size

    def __call__(self) -> Any:
        return self.factory()

    def __repr__(self) -> str:
        return f"<resource {self.name}, {self.size}>"


def resource(name: str, /, *, size: int = 1) -> Callable[[Callable[[], Any]], WorkerResource]:
    """Make a resource of a factory: `@resource("db", size=10)`. A worker has those of the modules that it has its tasks from.

    Raises ValidationError (`invalid_resource`).
    """
    return lambda factory: WorkerResource(name, factory, size)


class WorkerResources(Mapping[str, Any]):
    """`ctx.resources`: the items that a handler has, by the names of their resources.

    One that its task does not use raises ExecutionError (`resource_not_used`).
    """

    __slots__ = ("_allocated", "_discarded", "_items")

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = items
        self._discarded: set[str] = set()
        self._allocated: frozenset[str] = frozenset()

    def beside(self, allocated: Iterable[str]) -> Self:
        """The same, for an attempt that was allocated resources of these types: who looks for them here is told where."""
        self._allocated = frozenset(allocated)
        return self

    def __getitem__(self, name: str) -> Any:
        try:
            return self._items[name]
        except KeyError:
            raise self._missing(name) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def get(self, name: str, default: Any = None) -> Any:
        return self._items.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def discard(self, name: str) -> None:
        """The item is broken: it is closed once this handler has ended, and another is made when one is needed."""
        if name not in self._items:
            raise self._missing(name)
        self._discarded.add(name)

    @property
    def discarded(self) -> frozenset[str]:
        return frozenset(self._discarded)

    def _missing(self, name: str) -> ExecutionError:
        return ExecutionError(
            f"the task does not use a resource {name!r:.80}",
            code="resource_not_used",
            retry=False,
            hint="what was allocated to it is in ctx.allocated" if name in self._allocated else f'say so: @task(uses=["{name}"])',
        )


NO_RESOURCES = WorkerResources(MappingProxyType({}))


def checked_uses(task: str, uses: Iterable[str]) -> tuple[str, ...]:
    """The names of the resources that a task uses, each once, in order. Raises ValidationError (`invalid_task`)."""
    names = tuple(uses) if isinstance(uses, Iterable) else ()
    if (
        isinstance(uses, str)
        or not isinstance(uses, Iterable)
        or not all(isinstance(name, str) and is_user_id(name) for name in names)
    ):
        raise ValidationError(f"task `{task}`: uses={uses!r:.80} are no names", code="invalid_task", hint='uses=["db"]')
    return tuple(sorted(set(names)))


def collect_resources(source: Any, given: Any = ()) -> dict[str, WorkerResource]:
    """The resources of `source` (what `collect` takes) by name, and those given: WorkerResources, or factories by name.

    Raises ValidationError: `duplicate_resource` (two of one name), `invalid_resource`, `tasks_not_found`.
    """
    found: dict[str, WorkerResource] = {}
    for one in [*_given(given), *_resources(source)]:
        if found.setdefault(one.name, one) is not one:
            raise ValidationError(
                f"two resources are called `{one.name}`", code="duplicate_resource", hint="give one of them another name"
            )
    return found


def _given(given: Any) -> list[WorkerResource]:
    if isinstance(given, Mapping):
        return [_named(name, one) for name, one in given.items()]
    return [_named("", one) for one in given]


def _named(name: str, one: Any) -> WorkerResource:
    if not isinstance(one, WorkerResource):
        return WorkerResource(name, one)
    return one if name in ("", one.name) else WorkerResource(name, one.factory, one.size)


def _resources(source: Any) -> list[WorkerResource]:
    if isinstance(source, WorkerResource):
        return [source]
    if isinstance(source, str):
        return _resources(at_place(source))
    if isinstance(source, ModuleType):
        return list({id(one): one for one in vars(source).values() if isinstance(one, WorkerResource)}.values())
    if isinstance(source, Mapping):
        return _resources(source.values())
    if isinstance(source, Iterable):
        return [one for part in source for one in _resources(part)]
    return []


def _needed(factory: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a class of C, say
        return []
    return [one.name for one in parameters if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def _invalid(message: str, hint: str) -> ValidationError:
    return ValidationError(message, code="invalid_resource", hint=hint)

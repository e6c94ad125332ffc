"""`Plan` and `Step`: how a plan is written in Python, read from a file, and looked at. Checked the moment it is made.

A plan here is what `domain.plan` holds, with names that are convenient to write: tasks as decorated functions, dependencies
as `Step` objects, durations as `"30s"`, seconds or timedeltas. It never changes once it exists.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from os import PathLike
from typing import Any, Literal, Protocol, TypedDict, Unpack

import msgspec

from esexec import plan_files
from esexec.domain import plan as domain
from esexec.domain.aliases import wrong_type
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.domain.explain import as_plan_invalid, quoted
from esexec.domain.flow_reading import SaidKey, SaidRateLimit, SaidResources, read_key, read_requirements
from esexec.domain.graph import Graph, compile_plan
from esexec.domain.lint import PlanWarning, undone_after_all, warnings_of
from esexec.domain.reading import Config, read_config, read_plan, read_settings
from esexec.domain.rollback import Undo
from esexec.domain.settings import TaskInfo, TaskSettings
from esexec.tasks import Tasks, collect, records_before

Duration = str | int | float | timedelta
"""`"30s"`, a number of seconds, or a timedelta."""


class HasName(Protocol):
    """A decorated task function, as far as a plan needs it."""

    @property
    def name(self) -> str: ...


class StepSettings(TypedDict, total=False):
    """How a step's attempts are made; see `domain.settings.TaskSettings`. What ends in `_ms` counts milliseconds."""

    timeout: Duration | None
    timeout_ms: int | None
    timeout_growth: float | None
    queue_timeout: Duration | None
    queue_timeout_ms: int | None
    max_retries: int | None
    initial_retry_delay: Duration | None
    initial_retry_delay_ms: int | None
    retry_delay: Duration | None
    retry_delay_ms: int | None
    max_retry_delay: Duration | None
    max_retry_delay_ms: int | None
    backoff_multiplier: float | None
    retry_backoff: float | None
    jitter: float | None
    retry_jitter: float | None
    retry_unknown: bool | None
    max_retry_after: Duration | None
    max_retry_after_ms: int | None
    queue: str | None
    priority: int | None
    rate_limit: SaidRateLimit | None


class PlanSettings(StepSettings, total=False):
    """The same for all steps of a plan, and what concerns the execution as a whole; see `domain.settings.ExecutionConfig`.

    `preset`: settings for a kind of work, by name; what is said beside it wins.
    """

    preset: str | None
    parallel_execution_limit: int | None
    continue_on_error: bool | None
    enable_rollback: bool | None
    on_missing_compensation: Literal["skip", "fail"] | None
    execution_timeout: Duration | None
    execution_timeout_ms: int | None
    checkpoint_interval: Duration | None
    checkpoint_interval_ms: int | None
    checkpoint_every: Literal["task", "never"] | None
    concurrency: SaidKey | None


Known = Tasks | Mapping[str, TaskInfo]
"""Tasks as `collect` takes them (a module, its name, functions), or by their names what was announced of them."""


class Step:
    """A node of a plan: which task, with which params, after which other steps.

    `id` defaults to the task's name, made unique within the plan. `depends_on`: ids, positions or `Step` objects; a reference
    (`${steps.NAME.output}`) in `params` implies the dependency. `parallel`: may overlap with other steps. `fallback`: the task
    that is tried in its place once it has failed. `compensate`: the task that undoes it, if not the one its task names itself.
    `when`: a reference, or `not` and one: where that is false, null or not there (or, with `not`, is), the step is skipped.
    `concurrency`: how many such steps may run at once, over all executions. `resources`: what each of its attempts needs.
    Raises PlanInvalid for a task without a name and for settings that cannot be.
    """

    __slots__ = ("_fields", "depends_on", "id", "task")

    def __init__(
        self,
        task: "str | HasName",
        *,
        id: str | None = None,
        params: Mapping[str, Any] | str | None = None,
        depends_on: "str | int | Step | Sequence[str | int | Step]" = (),
        parallel: bool = False,
        fallback: "str | HasName | None" = None,
        compensate: "str | HasName | None" = None,
        when: str | None = None,
        concurrency: SaidKey | None = None,
        resources: SaidResources | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        **settings: Unpack[StepSettings],
    ) -> None:
        self.task = _name_of(task)
        self.id = id
        self.depends_on = tuple(depends_on) if isinstance(depends_on, list | tuple) else (depends_on,)
        try:
            said: TaskSettings = read_settings(settings, in_seconds=True)
            key = None if concurrency is None else read_key(concurrency, "concurrency", of="steps")
            needs = None if resources is None else read_requirements(resources, "resources", in_seconds=True)
        except ValidationError as error:
            raise as_plan_invalid(error) from None
        self._fields: dict[str, Any] = {
            "params": None if params is None or isinstance(params, str) else dict(params),
            "parallel": parallel,
            "fallback": None if fallback is None else _name_of(fallback, "fallback"),
            "compensate": None if compensate is None else _name_of(compensate, "compensate"),
            "when": when,
            "concurrency": key,
            "resources": needs,
            "description": description,
            "metadata": None if metadata is None else dict(metadata),
            **msgspec.to_builtins(said),
        }
        if isinstance(params, str):
            self._fields["params"] = params

    def __repr__(self) -> str:
        return f"Step({self.task!r}, id={self.id!r})"

    def _document(self, positions: dict[int, int], path: str) -> dict[str, Any]:
        """The step as `read_plan` takes it; `positions`: of every Step object of the plan, by its identity."""
        depends_on: list[str | int] = []
        for number, other in enumerate(self.depends_on):
            if isinstance(other, Step):
                where = f"{path}.depends_on[{number}]"
                if (position := positions.get(_identity(other))) is None:
                    hint = "put it into `steps` as well"
                    raise PlanInvalid(f"{where}: {other!r} is not in the plan", code="unknown_dependency", hint=hint, path=where)
                depends_on.append(position)
            else:
                depends_on.append(other)
        return {"task": self.task, "id": self.id, "depends_on": depends_on, **self._fields}


class Plan:
    """A named, immutable graph of steps; checked when it is made.

    `parallel` turns every step's `parallel` on. `config` and keyword settings are the plan's level of the settings, for all
    its steps; each is said in one of the two. Raises PlanInvalid, whose `code` names the rule that was broken.
    """

    __slots__ = ("_graph",)

    def __init__(
        self,
        name: str,
        steps: Sequence[Step],
        *,
        parallel: bool = False,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        config: Config | None = None,
        **settings: Unpack[PlanSettings],
    ) -> None:
        preset = settings.pop("preset", None)  # the weakest of all: resolved where `config` is read as well
        try:
            said = msgspec.to_builtins(read_config(settings, in_seconds=True))
        except ValidationError as error:
            raise as_plan_invalid(error) from None
        document = {
            "name": name,
            "steps": _documents(steps),
            "parallel": parallel,
            "description": description,
            "metadata": None if metadata is None else dict(metadata),
            "config": config,
            "preset": preset,
            **said,
        }
        self._graph = compile_plan(read_plan(document, in_seconds=True))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Plan":
        """A plan as in a file: snake_case or camelCase keys, every alias. Raises PlanInvalid."""
        plan = cls.__new__(cls)
        plan._graph = compile_plan(read_plan(document))
        return plan

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> "Plan":
        """A plan from a JSON (`.json`) or YAML 1.2 file.

        Raises PlanInvalid: what `from_dict` raises, `file_unreadable`, `bad_json`, `bad_yaml`; its message and context name
        the `file` and, where it is known, the `line`.
        """
        text, document = plan_files.load(path)
        try:
            return cls.from_dict(document)
        except PlanInvalid as error:
            raise plan_files.located(error, path, text) from None

    @classmethod
    def of(cls, spec: domain.Plan) -> "Plan":
        """The plan of a canonical form (`spec`). Raises PlanInvalid if it cannot be carried out."""
        plan = cls.__new__(cls)
        plan._graph = compile_plan(spec)
        return plan

    @property
    def name(self) -> str:
        return self._graph.plan.name

    @property
    def spec(self) -> domain.Plan:
        """The canonical form: what is sent and stored."""
        return self._graph.plan

    @property
    def graph(self) -> Graph:
        """The compiled form."""
        return self._graph

    @property
    def id(self) -> str:
        """SHA-256 of what the plan does: descriptions and metadata do not count."""
        return self._graph.plan_id

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON values; `from_dict` takes it back."""
        document: dict[str, Any] = msgspec.json.decode(self._graph.raw)
        return document

    def dry_run_rollback(self, tasks: Known | None = None) -> list[Undo]:
        """What a rollback would do once every step has completed, the last first. Nothing is run.

        `tasks`: those that workers will have, for the compensations and inverses that they bring; without them only what the plan
        itself says is known. Params are as they stand in the plan: outputs, and what references to them give, are not known yet.
        Raises ValidationError as `collect` does.
        """
        known, _ = _known(tasks)
        return undone_after_all(self._graph, known)

    def lint(self, tasks: Known | None = None) -> list[PlanWarning]:
        """What is allowed and probably not meant. `tasks` as in `dry_run_rollback`.

        `no_compensation`: nothing undoes a step, while another can be undone (`on_missing_compensation` in the plan says that it
        is meant so). `needs_before_image`: it is undone by its name, so its task has to call `ctx.before`, and was not seen to.
        `rollback_with_continue_on_error`: both are on. `fallback_is_the_task`: it would only fail once more.
        `limit_beyond_total`: a concurrency key lets more run with the same key than there may be in all.
        """
        return warnings_of(self._graph, *_known(tasks))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self._graph.raw == other._graph.raw

    def __hash__(self) -> int:
        return hash(self._graph.raw)

    def __repr__(self) -> str:
        return f"<Plan {self.name!r}: {len(self.spec.steps)} steps, {self.id[:12]}>"


_identity = id
"""The built-in, where a parameter or an attribute is called `id`."""


def _documents(steps: Sequence[Step]) -> list[dict[str, Any]]:
    if not isinstance(steps, list | tuple):
        raise as_plan_invalid(wrong_type("steps", "a list of Step", steps))
    positions: dict[int, int] = {}
    for position, step in enumerate(steps):
        path = f"steps[{position}]"
        if not isinstance(step, Step):
            raise as_plan_invalid(wrong_type(path, "a Step", step))
        if (first := positions.setdefault(_identity(step), position)) != position:
            message = f"{path}: the very object that is steps[{first}] already"
            raise PlanInvalid(message, code="duplicate_step", hint="make a Step of its own", path=path)
    return [step._document(positions, f"steps[{position}]") for position, step in enumerate(steps)]


def _known(tasks: Known | None) -> tuple[Mapping[str, TaskInfo], frozenset[str]]:
    """What is known of tasks, and which of them record what was before."""
    if tasks is None:
        return {}, frozenset()
    if isinstance(tasks, Mapping) and all(isinstance(one, TaskInfo) for one in tasks.values()):
        return tasks, frozenset()
    found = collect(tasks)  # type: ignore[arg-type]
    return {name: task.info for name, task in found.items()}, frozenset(n for n, task in found.items() if records_before(task))


def _name_of(task: object, role: str = "task") -> str:
    name = task if isinstance(task, str) else getattr(task, "name", None)
    if not isinstance(name, str):
        hint = "give its name, or decorate the function with @esexec.task"
        raise PlanInvalid(f"{role}: {quoted(task)} is no task", code="bad_task_name", hint=hint)
    return name

"""What a namespace holds in common: its level of the settings, announced tasks, recovery strategies (entity `_settings`).

Also the idempotency keys: entity `_key-<hash>`, whose first commit binds the key to an execution, for ever. The plans that it
keeps are `kept_plans`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Commit
from esexec.domain.decider import Surroundings
from esexec.domain.errors import CorruptHistory, ErrorInfo
from esexec.domain.explain import invalid_value, joined, quoted, shown
from esexec.domain.flow_rules import settings_problem
from esexec.domain.ids import is_task_name
from esexec.domain.settings import EMPTY_NAMESPACE, NamespaceConfig, TaskInfo
from esexec.domain.strategies import EVERY_ERROR, Strategy, pattern_problem

SETTINGS_ENTITY = "_settings"
_MESSAGE_CHARS = 500


def key_entity(key: str) -> str:
    """The entity that says to which execution an idempotency key belongs."""
    return f"_key-{hashlib.sha256(key.encode()).hexdigest()[:48]}"


class TaskVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task takes as params, as some worker announced it: `schema` a JSON Schema; None: anything. `id`: a hash of it."""

    id: str = ""
    schema: dict[str, Any] | None = None


def version_of(schema: dict[str, Any] | None) -> TaskVersion:
    """The version that a schema stands for."""
    if schema is None:
        return TaskVersion()
    return TaskVersion(hashlib.sha256(msgspec.json.encode(schema, order="sorted")).hexdigest()[:12], schema)


class NamespaceState(msgspec.Struct):
    """The folded `_settings`. `strategies`: in the order in which they were added first. `versions`: of tasks of which a schema
    was announced, the last one last."""

    n: int = 0
    version: int = 0
    config: NamespaceConfig = EMPTY_NAMESPACE
    tasks: dict[str, TaskInfo] = {}
    strategies: tuple[Strategy, ...] = ()
    versions: dict[str, tuple[TaskVersion, ...]] = {}
    any_task: bool = False
    applied: dict[str, int] = {}

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(self.config, self.tasks, self.strategies)


def fold_namespace(commits: Iterable[Commit], state: NamespaceState | None = None) -> NamespaceState:
    """The state after these commits. Raises `CorruptHistory` on a gap."""
    state = state or NamespaceState()
    for commit in commits:
        if commit.n != state.n + 1:
            raise CorruptHistory(f"{SETTINGS_ENTITY}: expected commit {state.n + 1}, found {commit.n}")
        state.n = commit.n
        for event in commit.events:
            state.version += 1
            match event:
                case e.NamespaceConfigured():
                    state.config = event.config if event.config != EMPTY_NAMESPACE else EMPTY_NAMESPACE
                case e.TasksAnnounced():
                    _announced(state, event)
                case e.StrategyAdded():
                    state.strategies = _with(state.strategies, event.strategy)
                case e.StrategyRemoved():
                    state.strategies = tuple(one for one in state.strategies if one.id != event.strategy_id)
        for cause in commit.commands:
            state.applied[cause.id] = commit.n
    return state


def _with(strategies: tuple[Strategy, ...], new: Strategy) -> tuple[Strategy, ...]:
    """With this one at the end, or in the place of the one of its id."""
    if any(one.id == new.id for one in strategies):
        return tuple(new if one.id == new.id else one for one in strategies)
    return (*strategies, new)


def decide_namespace(state: NamespaceState, command: c.SettingsCommand) -> list[e.Event] | ErrorInfo:
    """The events of a command on `_settings`, none if it changes nothing or was applied before; or why it is refused."""
    if command.id in state.applied:
        return []
    match command:
        case c.ConfigureNamespace():
            config = configured(state.config, command.config)
            if isinstance(config, ErrorInfo):
                return config
            return [] if config == state.config else [e.NamespaceConfigured(config=config)]
        case c.AnnounceTasks():
            news = {name: settings for name, settings in command.tasks.items() if state.tasks.get(name) != settings}
            for name, settings in news.items():
                if (problem := settings_problem(settings, joined("tasks", shown(name)))) is not None:
                    return problem
            if (problem := _schema_problem(command)) is not None:
                return problem
            schemas = _new_versions(state, command)
            any_task = command.any_task and not state.any_task
            if not (news or schemas or any_task):
                return []
            return [e.TasksAnnounced(tasks=news, worker=command.worker, schemas=schemas, any_task=any_task)]
        case c.AddStrategy():
            return _add(state, command.strategy)
        case c.RemoveStrategy():
            if (problem := id_problem(command.strategy_id)) is not None:
                return problem
            known = any(one.id == command.strategy_id for one in state.strategies)
            return [e.StrategyRemoved(strategy_id=command.strategy_id)] if known else []


def _announced(state: NamespaceState, event: e.TasksAnnounced) -> None:
    for name, schema in event.schemas.items():
        known = state.versions.get(name, (TaskVersion(),) if name in state.tasks else ())
        new = version_of(schema)
        kept = (*(one for one in known if one.id != new.id), new)[-limits.task_versions :]
        state.versions = state.versions | {name: kept}
    state.tasks = state.tasks | event.tasks
    state.any_task = state.any_task or event.any_task


def _new_versions(state: NamespaceState, command: c.AnnounceTasks) -> dict[str, dict[str, Any] | None]:
    """The schemas that are not known of their tasks; None for a task of which some are, and that comes without one now."""
    found: dict[str, dict[str, Any] | None] = {}
    for name in command.tasks:
        schema, known = command.schemas.get(name), state.versions.get(name, ())
        if (schema is not None or known) and all(one.id != version_of(schema).id for one in known):
            found[name] = schema
    return found


def _schema_problem(command: c.AnnounceTasks) -> ErrorInfo | None:
    for name, schema in command.schemas.items():
        if (size := len(msgspec.json.encode(schema))) > limits.schema_bytes:
            message = f"the schema of task {shown(name)} has {size} bytes"
            hint = f"at most {limits.schema_bytes} (limits.schema_bytes); leave it out"
            return ErrorInfo(type="validation_error", code="too_large", message=message, hint=hint)
    return None


def configured(config: NamespaceConfig, change: Mapping[str, Any]) -> NamespaceConfig | ErrorInfo:
    """`config` with a change of it (see `ConfigureNamespace`); or why that cannot be."""
    said: dict[str, Any] = msgspec.to_builtins(config)
    queues, news = said.pop("queues", {}), change.get("queues", {})
    said = _patched(said, {field: value for field, value in change.items() if field != "queues"})
    if isinstance(news, dict):
        queues = _patched(queues, {name: _patched(queues.get(name, {}), new) for name, new in news.items()})
        said["queues"] = {name: settings for name, settings in queues.items() if settings != {}}
    elif news is not None:
        said["queues"] = news
    try:
        new = msgspec.convert(said, NamespaceConfig)
    except msgspec.ValidationError as error:
        refusal = invalid_value(error, path="config").info
        hint = refusal.hint or "settings by their full names; see docs/reference/configuration.md"
        return msgspec.structs.replace(refusal, message=refusal.message[:_MESSAGE_CHARS], hint=hint)
    if len(new.queues) > limits.queue_presets:
        return ErrorInfo(
            type="validation_error",
            code="too_many_queues",
            message=f"the namespace would have settings for {len(new.queues)} queues",
            hint=f"at most {limits.queue_presets} (limits.queue_presets); take back those of a queue by null",
        )
    return settings_problem(new, "config") or new


def _patched(said: Any, change: Any) -> Any:
    if not isinstance(change, dict) or not isinstance(said, dict):
        return change
    return {name: value for name, value in (said | change).items() if value is not None}


def _add(state: NamespaceState, strategy: Strategy) -> list[e.Event] | ErrorInfo:
    if (problem := id_problem(strategy.id) or pattern_problem(strategy.applicable_errors)) is not None:
        return problem
    if not strategy.applicable_errors:
        strategy = msgspec.structs.replace(strategy, applicable_errors=EVERY_ERROR)
    known = next((one for one in state.strategies if one.id == strategy.id), None)
    if known is None and len(state.strategies) >= limits.strategies:
        return ErrorInfo(
            type="validation_error",
            code="too_many_strategies",
            message=f"the namespace has {len(state.strategies)} recovery strategies",
            hint=f"at most {limits.strategies} (limits.strategies); remove one that is not needed",
        )
    return [] if known == strategy else [e.StrategyAdded(strategy=strategy)]


def id_problem(strategy_id: object) -> ErrorInfo | None:
    """Why no strategy can be called so: its id takes the place of a task's name in a dispatch."""
    if isinstance(strategy_id, str) and is_task_name(strategy_id):
        return None
    return ErrorInfo(
        type="validation_error",
        code="bad_strategy_id",
        message=f"{quoted(strategy_id)} cannot name a recovery strategy",
        hint="letters, digits and _ . : / -",
    )

"""What a namespace holds in common: its level of the settings, and the tasks that workers announced (entity `_settings`).

Also the idempotency keys: entity `_key-<hash>`, whose first commit binds the key to an execution, for ever.
"""

import hashlib
from collections.abc import Iterable

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.decider import Surroundings
from esexec.domain.errors import CorruptHistory
from esexec.domain.settings import EMPTY_CONFIG, ExecutionConfig, TaskSettings

SETTINGS_ENTITY = "_settings"


def key_entity(key: str) -> str:
    """The entity that says to which execution an idempotency key belongs."""
    return f"_key-{hashlib.sha256(key.encode()).hexdigest()[:48]}"


class NamespaceState(msgspec.Struct):
    """The folded `_settings`."""

    n: int = 0
    version: int = 0
    config: ExecutionConfig = EMPTY_CONFIG
    tasks: dict[str, TaskSettings] = {}
    applied: dict[str, int] = {}

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(self.config, self.tasks)


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
                    state.config = event.config
                case e.TasksAnnounced():
                    state.tasks = state.tasks | event.tasks
        for cause in commit.commands:
            state.applied[cause.id] = commit.n
    return state


def decide_namespace(state: NamespaceState, command: c.ConfigureNamespace | c.AnnounceTasks) -> list[e.Event]:
    """The events of a command on `_settings`; none if it changes nothing, or was applied before."""
    if command.id in state.applied:
        return []
    if isinstance(command, c.ConfigureNamespace):
        said = {name: value for name in command.config.__struct_fields__ if (value := getattr(command.config, name)) is not None}
        config = msgspec.structs.replace(state.config, **said)
        return [] if config == state.config else [e.NamespaceConfigured(config=config)]
    news = {name: settings for name, settings in command.tasks.items() if state.tasks.get(name) != settings}
    return [e.TasksAnnounced(tasks=news, worker=command.worker)] if news else []

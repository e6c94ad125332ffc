"""What executions share: the namespace's settings, announced tasks, idempotency keys."""

from datetime import timedelta

import pytest

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.commit import Cause, Commit
from esexec.domain.errors import CorruptHistory
from esexec.domain.ids import is_token, is_user_id
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState, decide_namespace, fold_namespace, key_entity
from esexec.domain.settings import ExecutionConfig, TaskSettings
from tests.given import T0


def after(*commands: c.ConfigureNamespace | c.AnnounceTasks) -> NamespaceState:
    """The state after these commands, one commit each."""
    state = NamespaceState()
    for command in commands:
        if events := decide_namespace(state, command):
            state = fold_namespace([committed(state, command.id, *events)], state)
    return state


def committed(state: NamespaceState, cause: str, *events: e.Event) -> Commit:
    time = T0 + timedelta(seconds=state.n)
    return Commit(
        v=1,
        execution_id=SETTINGS_ENTITY,
        n=state.n + 1,
        version=state.version + 1,
        time=time,
        commands=(Cause(cause, time),),
        events=events,
    )


def test_settings_keep_what_is_not_said_anew() -> None:
    """A later configuration changes only the fields it gives."""
    state = after(
        c.ConfigureNamespace(id="c1", config=ExecutionConfig(max_retries=1, timeout_ms=5)),
        c.ConfigureNamespace(id="c2", config=ExecutionConfig(max_retries=0)),
    )
    assert state.surroundings.namespace == ExecutionConfig(max_retries=0, timeout_ms=5)
    assert (state.n, state.version, state.applied) == (2, 2, {"c1": 1, "c2": 2})


def test_what_changes_nothing_is_no_event() -> None:
    """The same settings again, the same tasks again, the same command again: nothing to record."""
    configure = c.ConfigureNamespace(id="c1", config=ExecutionConfig(max_retries=1))
    announce = c.AnnounceTasks(id="c2", tasks={"t": TaskSettings(queue="q")}, worker="w")
    state = after(configure, announce)
    assert decide_namespace(state, configure) == []
    assert decide_namespace(state, c.ConfigureNamespace(id="c3", config=configure.config)) == []
    assert decide_namespace(state, c.AnnounceTasks(id="c4", tasks=announce.tasks, worker="another")) == []


def test_only_news_about_tasks_are_recorded() -> None:
    """A worker announces all it has; what was known already is left out, what is said replaces what was said before."""
    state = after(c.AnnounceTasks(id="c1", tasks={"a": TaskSettings(queue="q"), "b": TaskSettings()}, worker="w1"))
    command = c.AnnounceTasks(id="c2", tasks={"a": TaskSettings(priority=1), "b": TaskSettings()}, worker="w2")
    assert decide_namespace(state, command) == [e.TasksAnnounced(tasks={"a": TaskSettings(priority=1)}, worker="w2")]
    assert after(command).surroundings.tasks["a"] == TaskSettings(priority=1)


def test_a_fold_notices_a_gap() -> None:
    """A missing commit is a `CorruptHistory`."""
    late = committed(NamespaceState(n=1), "c1", e.NamespaceConfigured(config=ExecutionConfig()))
    with pytest.raises(CorruptHistory):
        fold_namespace([late])


def test_an_earlier_state_is_not_changed_by_a_later_fold() -> None:
    """Surroundings that an execution was decided with stay what they were."""
    before = after(c.AnnounceTasks(id="c1", tasks={"a": TaskSettings()}))
    seen = before.surroundings
    event = e.TasksAnnounced(tasks={"b": TaskSettings()})
    fold_namespace([committed(before, "c2", event)], before)
    assert set(seen.tasks) == {"a"}


@pytest.mark.parametrize("key", ["order-17", "*.>", " ", "\x00", "é" * 500, "e\u0301", "\u00e9"])
def test_any_key_names_an_entity_of_ours(key: str) -> None:
    """Whatever a key says, its entity is a legal token that no user can take."""
    entity = key_entity(key)
    assert is_token(entity)
    assert not is_user_id(entity)
    assert entity.startswith("_key-")


def test_keys_are_not_normalised() -> None:
    """Two spellings of the same letter are two keys."""
    assert key_entity("e\u0301") != key_entity("\u00e9")

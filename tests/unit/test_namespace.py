"""What executions share: the namespace's settings, announced tasks, recovery strategies, idempotency keys."""

from datetime import timedelta

import msgspec
import pytest

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Cause, Commit
from esexec.domain.errors import CorruptHistory, ErrorInfo
from esexec.domain.ids import is_token, is_user_id
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState, decide_namespace, fold_namespace, key_entity
from esexec.domain.settings import ExecutionConfig, TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import T0


def after(*commands: c.SettingsCommand) -> NamespaceState:
    """The state after these commands, one commit each."""
    state = NamespaceState()
    for command in commands:
        events = decide_namespace(state, command)
        assert not isinstance(events, ErrorInfo)
        if events:
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
    announce = c.AnnounceTasks(id="c2", tasks={"t": TaskInfo(queue="q")}, worker="w")
    state = after(configure, announce)
    assert decide_namespace(state, configure) == []
    assert decide_namespace(state, c.ConfigureNamespace(id="c3", config=configure.config)) == []
    assert decide_namespace(state, c.AnnounceTasks(id="c4", tasks=announce.tasks, worker="another")) == []


def test_only_news_about_tasks_are_recorded() -> None:
    """A worker announces all it has; what was known already is left out, what is said replaces what was said before."""
    state = after(c.AnnounceTasks(id="c1", tasks={"a": TaskInfo(queue="q"), "b": TaskInfo()}, worker="w1"))
    command = c.AnnounceTasks(id="c2", tasks={"a": TaskInfo(priority=1), "b": TaskInfo()}, worker="w2")
    assert decide_namespace(state, command) == [e.TasksAnnounced(tasks={"a": TaskInfo(priority=1)}, worker="w2")]
    assert after(command).surroundings.tasks["a"] == TaskInfo(priority=1)


def test_what_undoes_a_task_is_announced_with_it() -> None:
    """A task that got a compensation is news, even if nothing else about it is."""
    state = after(c.AnnounceTasks(id="c1", tasks={"a": TaskInfo()}))
    command = c.AnnounceTasks(id="c2", tasks={"a": TaskInfo(compensate="undo_a")})
    assert decide_namespace(state, command) == [e.TasksAnnounced(tasks=command.tasks)]


def test_a_fold_notices_a_gap() -> None:
    """A missing commit is a `CorruptHistory`."""
    late = committed(NamespaceState(n=1), "c1", e.NamespaceConfigured(config=ExecutionConfig()))
    with pytest.raises(CorruptHistory):
        fold_namespace([late])


def test_an_earlier_state_is_not_changed_by_a_later_fold() -> None:
    """Surroundings that an execution was decided with stay what they were."""
    before = after(c.AnnounceTasks(id="c1", tasks={"a": TaskInfo()}), add("s1"))
    seen = before.surroundings
    event = e.TasksAnnounced(tasks={"b": TaskInfo()})
    fold_namespace([committed(before, "c2", event, e.StrategyRemoved(strategy_id="s1"))], before)
    assert set(seen.tasks) == {"a"}
    assert [one.id for one in seen.strategies] == ["s1"]


# Recovery strategies ---------------------------------------------------------------------------------------------------


def add(strategy_id: str, *, id: str | None = None, name: str = "") -> c.AddStrategy:
    return c.AddStrategy(id=id or f"add-{strategy_id}", strategy=Strategy(id=strategy_id, name=name))


def remove(strategy_id: str) -> c.RemoveStrategy:
    return c.RemoveStrategy(id=f"remove-{strategy_id}", strategy_id=strategy_id)


def test_strategies_are_asked_in_the_order_in_which_they_were_added() -> None:
    """A replaced one keeps its place; one that was removed and added again goes to the end."""
    state = after(add("a"), add("b"), add("c"), add("b", id="again", name="better"))
    assert [(one.id, one.name) for one in state.surroundings.strategies] == [("a", ""), ("b", "better"), ("c", "")]
    state = after(add("a"), add("b"), remove("a"), add("a", id="again"))
    assert [one.id for one in state.surroundings.strategies] == ["b", "a"]


def test_a_strategy_that_is_known_so_is_no_news() -> None:
    """Adding the same again, or removing what is not there, changes nothing and is no refusal."""
    state = after(add("a"))
    assert decide_namespace(state, add("a", id="again")) == []
    assert decide_namespace(state, remove("b")) == []
    assert decide_namespace(state, add("a", id="other", name="n")) == [e.StrategyAdded(strategy=Strategy(id="a", name="n"))]


def test_a_namespace_has_so_many_strategies() -> None:
    """`limits.strategies`; replacing one is possible even then."""
    state = after(*(add(f"s{number}") for number in range(limits.strategies)))
    refusal = decide_namespace(state, add("more"))
    assert isinstance(refusal, ErrorInfo)
    assert (refusal.type, refusal.code) == ("validation_error", "too_many_strategies")
    assert str(limits.strategies) in (refusal.hint or "")
    assert len(decide_namespace(state, add("s7", id="again", name="better"))) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy_id", ["a b", "*", "é", "-a", "a\n"])
def test_a_strategy_is_named_like_a_task(strategy_id: str) -> None:
    """Its id takes the place of a task's name in a dispatch."""
    refusal = decide_namespace(NamespaceState(), add(strategy_id, id="c1"))
    assert isinstance(refusal, ErrorInfo)
    assert refusal.code == "bad_strategy_id"


def test_the_largest_strategy_fits_into_a_commit() -> None:
    """Whatever letters it is written with: `limits.commit_bytes` holds it."""
    letter = "\x00"  # six bytes in JSON
    strategy = Strategy(
        id="a" * limits.task_name_chars,
        name=letter * limits.name_chars,
        description=letter * limits.text_chars,
        applicable_errors=(letter * limits.name_chars,) * 100,
        queue="q" * limits.id_chars,
    )
    strategy = msgspec.json.decode(msgspec.json.encode(strategy), type=Strategy)
    commit = committed(NamespaceState(), "c1", e.StrategyAdded(strategy=strategy))
    assert len(msgspec.json.encode(commit)) < limits.commit_bytes


# Idempotency keys ------------------------------------------------------------------------------------------------------


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

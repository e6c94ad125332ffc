"""What executions share: the namespace's settings, announced tasks, recovery strategies, idempotency keys."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Cause, Commit
from esexec.domain.errors import CorruptHistory, ErrorInfo
from esexec.domain.ids import is_token, is_user_id
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState, decide_namespace, fold_namespace, key_entity
from esexec.domain.settings import EMPTY_NAMESPACE, NamespaceConfig, QueueSettings, TaskInfo
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
        c.ConfigureNamespace(id="c1", config={"max_retries": 1, "timeout_ms": 5}),
        c.ConfigureNamespace(id="c2", config={"max_retries": 0}),
    )
    assert state.surroundings.namespace == NamespaceConfig(max_retries=0, timeout_ms=5)
    assert (state.n, state.version, state.applied) == (2, 2, {"c1": 1, "c2": 2})


def test_what_changes_nothing_is_no_event() -> None:
    """The same settings again, the same tasks again, the same command again: nothing to record."""
    configured = c.ConfigureNamespace(id="c1", config={"max_retries": 1})
    announce = c.AnnounceTasks(id="c2", tasks={"t": TaskInfo(queue="q")}, worker="w")
    state = after(configured, announce)
    assert decide_namespace(state, configured) == []
    assert decide_namespace(state, c.ConfigureNamespace(id="c3", config=configured.config)) == []
    assert decide_namespace(state, c.AnnounceTasks(id="c4", tasks=announce.tasks, worker="another")) == []


def configure(id: str, **config: Any) -> c.ConfigureNamespace:
    return c.ConfigureNamespace(id=id, config=config)


def test_null_takes_back_what_was_said() -> None:
    """A field that is null is said no longer; when nothing is said any more the namespace is as it was at first."""
    state = after(configure("c1", max_retries=1, timeout_ms=5), configure("c2", max_retries=None))
    assert state.config == NamespaceConfig(timeout_ms=5)
    state = after(configure("c1", max_retries=1), configure("c2", max_retries=None, queue=None))
    assert state.config is EMPTY_NAMESPACE
    assert decide_namespace(NamespaceState(), configure("c1", max_retries=None)) == []


def test_settings_of_one_queue_leave_the_others() -> None:
    """F126: by queue, and within a queue by field; null takes back a field, or all that was said of a queue."""
    state = after(
        configure("c1", queues={"background": {"timeout_ms": 5, "max_retries": 9}, "users": {"timeout_ms": 1}}, jitter=0.0),
        configure("c2", queues={"background": {"timeout_ms": 6, "max_retries": None, "priority": 1}}),
    )
    background, users = QueueSettings(timeout_ms=6, priority=1), QueueSettings(timeout_ms=1)
    assert state.config == NamespaceConfig(jitter=0.0, queues={"background": background, "users": users})
    for nothing in (None, {"timeout_ms": None, "priority": None}):
        left = decide_namespace(state, configure("c3", queues={"background": nothing}))
        assert left == [e.NamespaceConfigured(config=NamespaceConfig(jitter=0.0, queues={"users": users}))]
    assert decide_namespace(state, configure("c3", queues=None)) == [e.NamespaceConfigured(config=NamespaceConfig(jitter=0.0))]
    assert decide_namespace(state, configure("c3", queues={})) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonsense": 1}, {"max_retries": -1}, {"max_retries": "5"}, {"queue": "a b"}, {"queue": {"a": 1}}, {"queues": 5},
        {"queues": {"q": 5}}, {"queues": {"a b": {"priority": 1}}}, {"queues": {"q\n": {"priority": 1}}}, {"timeout": "5s"},
        {"queues": {"q": {"queue": "other"}}}, {"queues": {"q": {"max_retries": 1.5}}}, {"queues": {"q": {"queues": {}}}},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    """Whoever sends them is told which; nothing is changed."""
    refusal = decide_namespace(NamespaceState(), configure("c1", **wrong))
    assert isinstance(refusal, ErrorInfo)
    assert (refusal.type, refusal.code in {"invalid_value", "bad_queue"}) == ("validation_error", True)


def test_a_namespace_has_settings_of_so_many_queues() -> None:
    """`limits.queue_presets`; what is there can be changed even then."""
    full = {f"q{number}": {"priority": 1} for number in range(limits.queue_presets)}
    state = after(configure("c1", queues=full))
    refusal = decide_namespace(state, configure("c2", queues={"more": {"priority": 1}}))
    assert isinstance(refusal, ErrorInfo)
    assert (refusal.code, str(limits.queue_presets) in (refusal.hint or "")) == ("too_many_queues", True)
    assert len(decide_namespace(state, configure("c3", queues={"q7": {"priority": 2}}))) == 1  # type: ignore[arg-type]
    assert decide_namespace(state, configure("c4", queues={"q7": None, "more": {"priority": 1}})) != refusal


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
    late = committed(NamespaceState(n=1), "c1", e.NamespaceConfigured(config=NamespaceConfig()))
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
    for command in (add(strategy_id, id="c1"), remove(strategy_id)):
        refusal = decide_namespace(NamespaceState(), command)
        assert isinstance(refusal, ErrorInfo)
        assert refusal.code == "bad_strategy_id"


def test_a_strategy_without_patterns_handles_every_error() -> None:
    """An empty list is stored as what it means."""
    command = c.AddStrategy(id="c1", strategy=Strategy(id="s", applicable_errors=()))
    assert decide_namespace(NamespaceState(), command) == [e.StrategyAdded(strategy=Strategy(id="s", applicable_errors=("*",)))]


@pytest.mark.parametrize("pattern", ["", " ", "[", "HTTP_[", "[]", "[!]", "a[!", "[z-a]", "[ab][", "[[]["])
def test_a_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    """Blank, or with a bracket that is not closed or holds nothing."""
    refusal = decide_namespace(
        NamespaceState(), c.AddStrategy(id="c1", strategy=Strategy(id="s", applicable_errors=("*", pattern)))
    )
    assert isinstance(refusal, ErrorInfo)
    assert (refusal.code, bool(refusal.hint)) == ("bad_pattern", True)


@pytest.mark.parametrize("pattern", ["*", "HTTP_5*", "a]", "[]]", "[[]", "[!]]x", "[!a]", "[a-z]?", "HTTP_[45]*"])
def test_a_pattern_that_can_match_is_taken(pattern: str) -> None:
    """Whatever brackets it holds."""
    command = c.AddStrategy(id="c1", strategy=Strategy(id="s", applicable_errors=(pattern,)))
    assert decide_namespace(NamespaceState(), command) == [e.StrategyAdded(strategy=command.strategy)]


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


# Versions of tasks ------------------------------------------------------------------------------------------------------


def announce(command_id: str, schema: dict[str, Any] | None, name: str = "a") -> c.AnnounceTasks:
    schemas = {} if schema is None else {name: schema}
    return c.AnnounceTasks(id=command_id, tasks={name: TaskInfo()}, schemas=schemas)


def test_each_schema_of_a_task_is_a_version_of_it() -> None:
    """The last announced is the last; the same again changes nothing, whoever announces it."""
    state = after(announce("c1", {"title": "1"}), announce("c2", {"title": "2"}), announce("c3", {"title": "1"}))
    assert [one.schema for one in state.versions["a"]] == [{"title": "1"}, {"title": "2"}]
    assert "c3" not in state.applied


def test_a_worker_without_a_schema_is_a_version_of_its_own() -> None:
    """Before one with a schema or after it: somebody may be there who takes anything."""
    older = after(announce("c1", None), announce("c2", {"title": "1"}))
    assert [one.schema for one in older.versions["a"]] == [None, {"title": "1"}]
    newer = after(announce("c1", {"title": "1"}), announce("c2", None))
    assert [one.schema for one in newer.versions["a"]] == [{"title": "1"}, None]
    assert after(announce("c1", None), announce("c2", None)).versions == {}


def test_so_many_versions_are_known() -> None:
    """A task that is announced anew for ever does not make the settings large."""
    state = after(*(announce(f"c{number}", {"title": str(number)}) for number in range(limits.task_versions + 3)))
    assert len(state.versions["a"]) == limits.task_versions
    assert state.versions["a"][-1].schema == {"title": str(limits.task_versions + 2)}


def test_a_handler_of_any_task_is_known_once_it_was_announced() -> None:
    """It is one event, however many workers have it."""
    state = after(c.AnnounceTasks(id="c1", tasks={}, any_task=True))
    assert state.any_task
    assert decide_namespace(state, c.AnnounceTasks(id="c2", tasks={}, any_task=True)) == []

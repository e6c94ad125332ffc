"""The read model of executions: whatever happened, in whatever pages, with whatever crashes, lists say what details say."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from esexec.domain.evolve import fold
from esexec.log import codec
from esexec.results import ExecutionResult, TaskResult, result_of
from projections.executions import EXECUTIONS, TAGS, TASKS, ExecutionsProjection
from tests.projecting import HISTORIES, Stage, golden, project, renamed

KINDS = sorted(file.stem for file in HISTORIES.glob("*.jsonl"))
NOT_IN_LISTS = {"output"}


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """Some golden histories, or their beginnings, mixed with each other."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    left = [renamed(golden(kind), f"e{number}") for number, kind in enumerate(kinds)]
    left = [commits[: draw(st.integers(1, len(commits)))] for commits in left]
    mixed: list[bytes] = []
    while left:
        history = draw(st.sampled_from(left))
        mixed.append(history.pop(0))
        left = [commits for commits in left if commits]
    return Stage().add_all(mixed)


def detail(stage: Stage, entity: str) -> ExecutionResult:
    commits = [one.commit for one in stage.recorded if one.entity == entity]
    state = fold(entity, commits)
    state.position = max(one.position for one in stage.recorded if one.entity == entity)
    return result_of(state)


def fields(struct: msgspec.Struct) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(struct))  # type: ignore[no-any-return]


def no_stack(said: dict[str, Any]) -> dict[str, Any]:
    if isinstance(said.get("error"), dict):
        said = said | {"error": {key: value for key, value in said["error"].items() if key != "stack"}}
    return said


@settings(max_examples=60, deadline=None)
@given(stages(), st.data())
def test_lists_say_what_details_say(stage: Stage, data: st.DataObject) -> None:
    """Each field of a row is what the execution's own result has, each task's too; nothing is missing, nothing extra."""
    cuts = data.draw(st.sets(st.integers(1, len(stage.recorded))))
    crashes = data.draw(st.sets(st.integers(1, len(stage.recorded)), max_size=3))
    view = project(ExecutionsProjection, stage, sorted(cuts), sorted(crashes)).view

    entities = {one.entity for one in stage.recorded}
    rows = {row.id: row for row in view.select(EXECUTIONS)}
    assert set(rows) == entities
    for entity in entities:
        result = detail(stage, entity)
        row, told, whole = rows[entity], msgspec.json.decode(rows[entity].data), no_stack(fields(result))
        assert {key: value for key, value in told.items() if key != "n"} == {key: whole[key] for key in told if key != "n"}
        assert (row.status, row.name, row.plan_id) == (result.status, result.name, result.plan_id)
        tasks = view.select(TASKS, order=["id", "step"])
        said = [msgspec.json.decode(task.data) for task in tasks if task.id == entity]
        assert [{key: one.get(key) for key in TaskResult.__struct_fields__ if key not in NOT_IN_LISTS} for one in said] == [
            {key: one.get(key) for key in TaskResult.__struct_fields__ if key not in NOT_IN_LISTS}
            for one in (no_stack(fields(task)) for task in result.results)
        ]
        tags = {tag.tag: tag for tag in view.select(TAGS) if tag.id == entity}
        assert set(tags) == {f"{name}={msgspec.json.encode(value).decode()}" for name, value in result.metadata.items()}
        assert all(tag.status == row.status for tag in tags.values())


def test_a_broken_history_costs_the_others_nothing() -> None:
    """It stays as it was before the commit that cannot be; all others go on."""
    broken, fine = renamed(golden("completed"), "broken"), renamed(golden("failed"), "fine")
    impossible = codec.encode(msgspec.structs.replace(codec.decode(broken[1]), version=99))
    stage = Stage().add_all([broken[0], fine[0], impossible, *fine[1:]])
    view = project(ExecutionsProjection, stage, cuts=[2]).view
    told = {row.id: msgspec.json.decode(row.data) for row in view.select(EXECUTIONS)}
    assert told["fine"]["status"] == "failed"
    assert told["broken"]["n"] == 1


def test_what_is_beyond_the_limit_of_a_tag_is_found_all_the_same() -> None:
    """A long value is found by its hash, which `tag_of` makes for who asks as well."""
    from projections.executions import tag_of

    assert len(tag_of("note", "x" * 10_000)) < 100
    assert tag_of("note", "x" * 10_000) == tag_of("note", "x" * 10_000) != tag_of("note", "x" * 9_999)
    assert "\0" not in tag_of("note", "a\0b")


def test_golden_histories_are_all_in_it() -> None:
    """Every kind, read in one page, is one row with the status that it ended in."""
    stage = Stage().add_all([one for kind in KINDS for one in renamed(golden(kind), kind)])
    view = project(ExecutionsProjection, stage).view
    for kind in KINDS:
        row = view.get(EXECUTIONS, kind)
        assert row.status == fold(kind, [codec.decode(one) for one in renamed(golden(kind), kind)]).status

"""Values that are kept as objects, in the core: what stands for them, what needs to be opened, what is told of a dispatch."""

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given as for_all

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.commit import Commit, hash_of
from esexec.domain.dispatches import Deferred
from esexec.domain.effects import Ask, DispatchAttempt, open_effects
from esexec.domain.errors import CorruptHistory, ErrorInfo, ValidationError
from esexec.domain.evolve import fold
from esexec.domain.messages import Dispatch
from esexec.domain.objects import ObjectNeeded, ObjectPart, ObjectRef, Pointer, parted, put_in, within
from esexec.log import codec
from esexec.log.port import Stored
from tests.given import EXECUTION, History, at, completed, given, start, step

REF = ObjectRef("a" * 64, 300_000)
OTHER = ObjectRef("b" * 64, 400_000)


def large(step: str, ref: ObjectRef = REF) -> tuple[r.Report, str, str]:
    """The report of a step whose output is an object."""
    return r.Completed(started_at=at(0), ended_at=at(1), output_object=ref), step, "1-1"


def handed_out(history: History, message: Any) -> Dispatch | Deferred | ErrorInfo:
    """What the attempt that follows is handed out with."""
    effects = history.when(message).effects
    return next(one.message for one in effects if isinstance(one, DispatchAttempt))


def messages_of(started: Any) -> list[Dispatch | Deferred | ErrorInfo]:
    """What a start hands out."""
    return [one.message for one in open_effects(given(started).state) if isinstance(one, DispatchAttempt)]


def test_a_reference_as_a_whole_is_left_to_the_worker() -> None:
    """The dispatch says which object, what of it, and where that belongs; nothing is opened for it."""
    params = {"rows": ["${steps.a.output.rows[2]}"], "all": "${steps.a.output}", "n": 1}
    message = handed_out(given(start("a", step("b", "a", params=params))), large("a"))
    assert isinstance(message, Dispatch)
    assert message.params == {"rows": [None], "all": None, "n": 1}
    assert message.objects == (
        ObjectPart(at=("params", "rows", 0), sha256=REF.sha256, bytes=REF.bytes, path=("rows", 2)),
        ObjectPart(at=("params", "all"), sha256=REF.sha256, bytes=REF.bytes),
    )


def test_what_a_text_needs_is_opened_first() -> None:
    """The core says which objects it needs, one after the other; given them, the rest is as without objects."""
    params = {"title": "${steps.a.output.name} of ${input.who}", "all": "${steps.a.output}"}
    history = given(start("a", step("b", "a", params=params), input_object=OTHER))
    message = handed_out(history, large("a"))
    assert isinstance(message, Deferred)
    opened: dict[str, Any] = {}
    for ref, value in ((REF, {"name": "rows"}), (OTHER, {"who": "ada"})):
        with pytest.raises(ObjectNeeded) as needed:
            message.with_objects(opened)
        assert needed.value.ref == ref
        opened[ref.sha256] = value
    dispatch = message.with_objects(opened)
    assert dispatch.params == {"title": "rows of ada", "all": None}
    assert [part.at for part in dispatch.objects] == [("params", "all")]
    with pytest.raises(ValidationError, match="there is no `who`") as nowhere:
        message.with_objects(opened | {OTHER.sha256: {}})
    assert nowhere.value.code == "reference_unresolved"


def test_what_is_deferred_does_not_change_with_the_state() -> None:
    """The execution goes on while objects are fetched: the params are those of when the attempt was scheduled."""
    history = given(start("a", step("b", "a", params={"t": "it is ${steps.a.output.x}"})))
    message = handed_out(history, large("a"))
    assert isinstance(message, Deferred)
    state = history.state
    state.steps[0].output = {"x": "another"}
    assert message.with_objects({REF.sha256: {"x": 1}}).params == {"t": "it is 1"}


def test_params_that_take_over_an_object_need_it() -> None:
    """All that a large output has, with what stands beside."""
    message = handed_out(given(start("a", step("b", "a", params={"...": "${steps.a.output.row}", "n": 1}))), large("a"))
    assert isinstance(message, Deferred)
    assert message.with_objects({REF.sha256: {"row": {"x": 2, "n": 3}}}).params == {"x": 2, "n": 1}


@pytest.mark.parametrize("when", ["${steps.a.output.ok}", "not ${steps.a.output.ok}"])
def test_a_condition_looks_into_no_object(when: str) -> None:
    """That there is a large output is known; what is within is not: the step fails rather than be done against its condition."""
    known = handed_out(given(start("a", step("b", "a", when="${steps.a.output}"))), large("a"))
    assert isinstance(known, Dispatch)
    unknown = handed_out(given(start("a", step("b", "a", when=when))), large("a"))
    assert isinstance(unknown, ErrorInfo)
    assert unknown.code == "value_in_object"


def test_a_key_of_flow_control_looks_into_no_object() -> None:
    """A start whose key is in its input's object is refused; a step's attempt fails."""
    limit = {"max_executions": 1, "window_ms": 1000, "key": "${params.who}"}
    one = step("b", "a", params={"who": "${steps.a.output.who}"}, rate_limit=limit)
    asked = next(effect for effect in given(start("a", one)).when(large("a")).effects if isinstance(effect, Ask))
    assert isinstance(asked.message, ErrorInfo)
    assert asked.message.code == "value_in_object"
    config = {"concurrency": {"key": "input.tenant", "limit": 1}}
    refused = given().when(start("a", config=config, input_object=REF))
    assert refused.verdict.error is not None
    assert refused.verdict.error.code == "value_in_object"


def test_objects_are_part_of_what_a_start_says() -> None:
    """The same objects again are the same start; others are a conflict."""
    history = given(start("a", id="c1", input_object=REF))
    assert history.when(start("a", id="c2", input_object=REF)).verdict.kind == "duplicate"
    assert history.when(start("a", id="c3", input_object=OTHER)).verdict.kind == "refused"
    assert history.when(start("a", id="c4")).verdict.kind == "refused"


def a_large_plan() -> History:
    history = History()
    command = start(step("a", metadata={"about": "x" * limits.plan_bytes}))
    assert history.when(command).verdict.error is not None  # not within a message
    ref = ObjectRef(hash_of(bytes(command.plan)), len(bytes(command.plan)))
    history.happen(msgspec.structs.replace(command, plan_object=ref))
    return history


def test_a_plan_that_is_an_object_is_not_in_the_bytes() -> None:
    """What is encoded has only the reference; with the plan put back the history folds, and without it says what is missing."""
    commit = a_large_plan().commits[0]
    created = commit.events[0]
    assert isinstance(created, e.ExecutionCreated)
    data = codec.encode(codec.as_stored(commit))
    assert len(data) < 1_000
    assert codec.plan_object_of(data) == codec.lacking(codec.decode(data)) == created.plan_object
    stored = Stored(1, 1, data, created.document)
    assert codec.commit_of(stored) == commit
    assert fold(EXECUTION, [codec.commit_of(stored)]).graph.steps[0].id == "a"
    with pytest.raises(CorruptHistory, match="nobody has fetched"):
        fold(EXECUTION, [codec.decode(data)])


def test_the_bytes_of_references() -> None:
    """A storage format: they never change."""
    ref = ObjectRef("a" * 64, 300_000)
    event = e.TaskCompleted(step="s", ended_at=at(0), output_object=ref)
    written = '{"sha256":"' + "a" * 64 + '","bytes":300000}'
    assert msgspec.json.encode(event).decode() == (
        '{"type":"task_completed","step":"s","ended_at":"2026-01-01T00:00:00Z","output_object":' + written + "}"
    )
    created = e.ExecutionCreated(plan_object=ref, plan_id="p", name="n", input_object=ref, kept_objects={"s": ref})
    assert msgspec.json.encode(created).decode() == (
        f'{{"type":"execution_created","plan_id":"p","name":"n","plan_object":{written},"input_object":{written},'
        f'"kept_objects":{{"s":{written}}}}}'
    )


def test_a_plan_within_the_bytes_stays_there() -> None:
    """A usual first commit is encoded as it always was."""
    commit: Commit = given(start("a")).commits[0]
    assert codec.as_stored(commit) is commit
    assert codec.plan_object_of(codec.encode(commit)) is None
    assert codec.plan_object_of(b'{"plan_object":{ no commit') is None


def test_a_fork_takes_references_along() -> None:
    """Plan, input and outputs of the new execution are the same objects."""
    history = a_large_plan()
    created = history.state.created
    plan = msgspec.Raw(created.document)
    history = given(
        c.StartExecution(id="c1", plan=plan, plan_object=created.plan_object, input_object=OTHER),
        large("a"),
    )
    assert history.state.status == "completed"
    assert history.state.steps[0].output == REF


values = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@for_all(values, st.data())
def test_what_is_taken_out_can_be_put_back(value: Any, data: st.DataObject) -> None:
    """Pointers anywhere in params are told with their places, and put there they give the value again; nothing else changes."""
    kept: dict[str, Any] = {}

    def some(one: Any) -> Any:
        if data.draw(st.booleans()):
            name = f"{len(kept):064x}"
            kept[name] = one
            return Pointer(ObjectRef(name, 1), (), "")
        if isinstance(one, dict):
            return {key: some(item) for key, item in one.items()}
        return [some(item) for item in one] if isinstance(one, list) else one

    left, parts = parted(some(value), ())
    for part in parts:
        left = put_in(left, part.at, kept[part.sha256])
    assert left == value


@pytest.mark.parametrize(
    ("path", "found"), [((), {"a": [1, {"b": 2}]}), (("a",), [1, {"b": 2}]), (("a", 1, "b"), 2), (("a", 0), 1)]
)
def test_a_path_leads_into_a_value(path: tuple[str | int, ...], found: Any) -> None:
    """Key by key, name or number."""
    assert within({"a": [1, {"b": 2}]}, path) == found


@pytest.mark.parametrize("path", [("x",), ("a", 2), ("a", "0"), (0,), ("a", 0, "b"), ("a", 1, "b", "c")])
def test_a_path_that_leads_nowhere_is_an_error(path: tuple[str | int, ...]) -> None:
    """With the code of every reference to nothing."""
    with pytest.raises(ValidationError) as error:
        within({"a": [1, {"b": 2}]}, path)
    assert error.value.code == "reference_unresolved"


@pytest.mark.parametrize(
    ("name", "size"),
    [("a" * 63, 1), ("A" * 64, 1), ("a" * 64, 0), ("a" * 64, limits.object_bytes + 1), ("a" * 64 + "\n", 1)],
)
def test_what_names_no_object_is_no_reference(name: str, size: int) -> None:
    """A hash in hexadecimal, and a size within the limit: anything else is refused where it is decoded."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"sha256": name, "bytes": size}), type=ObjectRef)


def test_a_step_that_completed_with_an_object_is_like_any_other() -> None:
    """It releases its dependents and is in the result, as its reference."""
    history = given(start("a", step("b", "a")), large("a"), completed("b"))
    assert history.state.status == "completed"
    assert history.state.has_objects


@pytest.mark.parametrize("given_as", [{}, {"input_object": OTHER}])
def test_large_params_of_many_steps_are_not_told_all_at_once(given_as: dict[str, Any]) -> None:
    """What a text becomes may be far larger than the plan: it is worked out when it is sent, attempt by attempt."""
    large = {"context": {"text": "x" * 100_000}} | given_as
    wide = [step(f"s{number}", params={"text": "${context.text}" * 20}, parallel=True) for number in range(5)]
    effects = messages_of(start(*wide, **large))
    assert len(effects) == 5
    for message in effects:
        assert isinstance(message, Deferred)
        assert len(message.with_objects({}).params["text"]) == 2_000_000
        with pytest.raises(ValidationError, match="too large"):
            message.with_objects({}, 1_000_000)
    small = messages_of(start(step("a", params={"text": "${context.text}"}), **large))
    assert [type(one) for one in small] == [Dispatch]

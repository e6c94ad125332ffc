"""The plans that a namespace keeps: given these commands, when one more comes, then these events."""

import hashlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import rfc8785

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Cause, Commit
from esexec.domain.compiled import graph_of
from esexec.domain.errors import CorruptHistory, ErrorInfo, PlanInvalid
from esexec.domain.ids import is_token, is_user_id
from esexec.domain.kept_plans import (
    PLANS_ENTITY,
    PlansState,
    decide_plans,
    document_of,
    fold_plans,
    is_plan_id,
    plan_entity,
)
from tests.given import T0

GOOD = {"name": "good", "steps": [{"id": "a", "task": "t"}]}
CYCLE = {"name": "round", "steps": [{"id": "a", "task": "t", "depends_on": ["b"]}, {"id": "b", "task": "t", "depends_on": ["a"]}]}


def raw(document: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(document))


GOOD_ID = graph_of(bytes(raw(GOOD))).plan_id
CYCLE_ID = hashlib.sha256(rfc8785.dumps(CYCLE)).hexdigest()  # type: ignore[arg-type]


def put(document: Any = GOOD, *, id: str = "c1", status: Any = "ready", query: str = "") -> c.PutPlan:
    return c.PutPlan(id=id, plan=raw(document), status=status, query=query)


def mark(status: Any, plan_id: str = GOOD_ID, *, id: str = "m1") -> c.PutPlan:
    return c.PutPlan(id=id, plan_id=plan_id, status=status)


def after(*commands: c.PutPlan) -> PlansState:
    """The state after these commands, one commit each; documents are stored elsewhere."""
    state = PlansState()
    for command in commands:
        decided = decide_plans(state, command)
        assert not isinstance(decided, ErrorInfo)
        if listed := [event for event in decided if not isinstance(event, e.PlanStored)]:
            fold_plans([committed(state, command.id, *listed)], state)
    return state


def committed(state: PlansState, cause: str, *events: e.Event) -> Commit:
    time = T0 + timedelta(seconds=state.n)
    return Commit(
        v=1,
        execution_id=PLANS_ENTITY,
        n=state.n + 1,
        version=state.version + 1,
        time=time,
        commands=(Cause(cause, time),),
        events=events,
    )


def refusal(state: PlansState, command: c.PutPlan) -> ErrorInfo:
    decided = decide_plans(state, command)
    assert isinstance(decided, ErrorInfo)
    assert (decided.type, bool(decided.message), bool(decided.hint)) == ("validation_error", True, True)
    return decided


def test_a_plan_is_stored_and_listed() -> None:
    """Its document in the canonical form, and its name and status."""
    stored, listed = decide_plans(PlansState(), put(query="make it good"))
    assert stored == e.PlanStored(plan_id=GOOD_ID, plan=msgspec.Raw(graph_of(bytes(raw(GOOD))).raw))
    assert listed == e.PlanListed(plan_id=GOOD_ID, name="good", status="ready", query="make it good")
    kept = after(put(query="make it good")).plans[GOOD_ID]
    assert (kept.created_at, kept.changed_at) == (T0, T0)


def test_the_same_plan_again_changes_at_most_its_status() -> None:
    """The first document stands; written otherwise, or described otherwise, it is the same plan."""
    state = after(put(query="first"))
    again = {"steps": [{"task": "t", "id": "a", "description": "words"}], "name": "good", "description": "words"}
    assert decide_plans(state, put(again, id="c2", query="second")) == []
    draft = e.PlanListed(plan_id=GOOD_ID, name="good", status="draft", query="first")
    assert decide_plans(state, put(again, id="c2", status="draft")) == [draft]
    state = after(put(query="first"), put(again, id="c2", status="draft"))
    assert (state.plans[GOOD_ID].created_at, state.plans[GOOD_ID].changed_at) == (T0, T0 + timedelta(seconds=1))


def test_the_same_command_again_is_no_event() -> None:
    """A command that came twice is decided once, whatever happened in between."""
    state = after(put(), put(id="c2", status="archived"))
    assert decide_plans(state, put()) == []


@pytest.mark.parametrize("status", ["draft", "ready", "archived"])
def test_a_plan_that_cannot_be_carried_out_is_kept_as_invalid(status: Any) -> None:
    """With the reason, whatever status was asked for; its id is that of its canonical JSON."""
    stored, listed = decide_plans(PlansState(), put(CYCLE, status=status))
    assert isinstance(stored, e.PlanStored) and isinstance(listed, e.PlanListed)
    assert msgspec.json.decode(bytes(stored.plan)) == CYCLE
    assert (stored.plan_id, listed.plan_id, listed.name, listed.status) == (CYCLE_ID, CYCLE_ID, "round", "invalid")
    assert listed.problem is not None
    assert (listed.problem.code, listed.problem.context) == ("cycle", {"path": "steps[0]"})


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_an_invalid_plans_keys_is_not_its_identity(order: int) -> None:
    """The same JSON in another order is the same document."""
    shuffled = dict(list({"steps": [], "name": "empty", "extra": 1}.items())[::order])
    assert document_of(bytes(raw(shuffled))).plan_id == hashlib.sha256(b'{"extra":1,"name":"empty","steps":[]}').hexdigest()


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (b"[]", "invalid_value"),
        (b"17", "invalid_value"),
        (b"null", "invalid_value"),
        (b'{"name":', "bad_json"),
        (b'{"name": "\xff"}', "not_utf8"),
        (b'{"name": "n", "steps": [{"task": "t", "params": {"n": 9007199254740993}}]}', "not_canonical"),
        (b'{"name": "n", "x": ' + b"[" * 200 + b"]" * 200 + b"}", "too_deep"),
        (b'{"name": "n", "x": "' + b"x" * limits.plan_bytes + b'"}', None),
        (b'{"name": "n", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
    ],
)
def test_what_is_not_even_a_document_is_refused(written: bytes, code: str | None) -> None:
    """No JSON object, too deep, too large, numbers that have no canonical form: not kept, and the reason is said."""
    with pytest.raises(PlanInvalid) as raised:
        document_of(written)
    if code is not None:
        assert raised.value.code == code
    assert raised.value.message
    if not written.endswith(b'":') and b"\xff" not in written:
        assert isinstance(decide_plans(PlansState(), c.PutPlan(id="c1", plan=msgspec.Raw(written))), ErrorInfo)


def test_a_command_says_either_plan_or_id() -> None:
    """Both, or none, mean nothing."""
    assert refusal(PlansState(), c.PutPlan(id="c1")).code == "plan_or_plan_id"
    assert refusal(PlansState(), c.PutPlan(id="c1", plan=raw(GOOD), plan_id=GOOD_ID)).code == "plan_or_plan_id"


def test_the_status_of_a_kept_plan_can_be_changed() -> None:
    """By its id alone; what it is already is no event."""
    state = after(put(query="q"))
    assert decide_plans(state, mark("archived")) == [
        e.PlanListed(plan_id=GOOD_ID, name="good", status="archived", query="q"),
    ]
    assert decide_plans(state, mark("ready")) == []
    state = after(put(), mark("archived"), mark("ready", id="m2"))
    assert state.plans[GOOD_ID].status == "ready"


@pytest.mark.parametrize("plan_id", ["0" * 64, "", "x" * 10_000, "../_settings"])
def test_what_is_not_kept_has_no_status(plan_id: str) -> None:
    """`unknown_plan`, told in few words whatever the id is."""
    told = refusal(after(put()), mark("archived", plan_id))
    assert told.code == "unknown_plan"
    assert len(told.message) < 300


def test_an_invalid_plan_can_be_archived_but_not_made_ready() -> None:
    """Its problem goes with it, also when it was archived."""
    state = after(put(CYCLE), mark("archived", CYCLE_ID))
    assert state.plans[CYCLE_ID].status == "archived"
    told = refusal(state, mark("ready", CYCLE_ID, id="m2"))
    assert (told.code, told.context["status"]) == ("plan_not_ready", "archived")
    assert "steps wait for each other" in told.message
    assert after(put(CYCLE), mark("archived", CYCLE_ID), put(CYCLE, id="c2")).plans[CYCLE_ID].status == "invalid"


def test_a_namespace_keeps_so_many_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """`limits.plans_stored`; the status of those that are kept can be changed even then."""
    monkeypatch.setattr(limits, "plans_stored", 1)
    state = after(put())
    assert refusal(state, put(CYCLE, id="c2")).code == "too_many_plans"
    assert len(decide_plans(state, put(id="c2", status="draft"))) == 1  # type: ignore[arg-type]


def test_what_is_listed_stays_small() -> None:
    """A cycle through thousands of steps, names and queries of the largest size: `limits.commit_bytes` holds the line."""
    count, wide = 3_000, "\x00"
    steps = [{"id": f"s{n:060}", "task": "t", "depends_on": [f"s{(n + 1) % count:060}"]} for n in range(count)][:1_000]
    steps[-1]["depends_on"] = [steps[0]["id"]]
    decided = decide_plans(PlansState(), put({"name": wide * limits.name_chars, "steps": steps}, query=wide * limits.text_chars))
    assert not isinstance(decided, ErrorInfo)
    listed = decided[-1]
    assert isinstance(listed, e.PlanListed)
    assert listed.problem is not None and listed.problem.code == "cycle"
    assert len(msgspec.json.encode(listed)) < limits.commit_bytes / 2


def test_a_fold_notices_a_gap() -> None:
    """A missing commit is a `CorruptHistory`."""
    late = committed(PlansState(n=1), "c1", e.PlanListed(plan_id=GOOD_ID, name="good", status="ready"))
    with pytest.raises(CorruptHistory):
        fold_plans([late])


def test_a_plans_entity_is_ours() -> None:
    """A legal token that no user can take; and only ids of the right form are ids."""
    assert is_token(plan_entity(GOOD_ID)) and not is_user_id(plan_entity(GOOD_ID))
    assert is_plan_id(GOOD_ID)
    assert not any(is_plan_id(text) for text in ("", GOOD_ID[:-1], GOOD_ID + "0", GOOD_ID.upper() + "\n", "g" * 64))

"""What holds in the test kit of any plan, with any faults, and executors that die at any moment."""

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import esexec
from esexec import Plan, Step
from esexec.testing import Then, VirtualEngine

LONG = bool(os.environ.get("ESEXEC_LONG"))
some = settings(max_examples=1_000 if LONG else 30, deadline=None)

FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "once": {"times": 1},
    "three times": {"times": 3},
    "slowly": {"times": 2, "after": "3s"},
    "for a while": {"lasting": "2s"},
    "for good": {"retry": False},
    "hangs": {"hangs": True, "times": 1},
}


@esexec.task(max_retries=2, timeout="5s")
async def work(step: str) -> str:
    return f"did {step}"


@work.compensate
async def undo(step: str) -> None: ...


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A few steps, each after some of those before it, some of them side by side."""
    steps: list[Step] = []
    for n in range(draw(st.integers(1, 5))):
        before = draw(st.lists(st.sampled_from([f"s{m}" for m in range(n)]), unique=True, max_size=2)) if n else []
        steps.append(Step(work, id=f"s{n}", params={"step": f"s{n}"}, depends_on=before, parallel=draw(st.booleans())))
    return Plan("p", steps=steps)


faults = st.dictionaries(st.sampled_from([f"s{n}" for n in range(5)]), st.sampled_from(sorted(FAULTS)))


def tried(plan: Plan, faults: dict[str, str], crashes: list[int], *, always: bool) -> tuple[Then, list[str], dict[str, Any]]:
    """What came of it, with an executor that dies after each commit (`always`), or after so many ticks, and again."""
    engine = VirtualEngine()
    try:
        engine.given(work)
        for step, name in faults.items():
            if FAULTS[name]:
                engine.fail_step(step, "BROKEN", **FAULTS[name])
        if always:
            engine.crash_after()
        then = engine.start(plan)
        for ticks in crashes:
            for _ in range(ticks):
                engine.tick()
            engine.crash()
        engine.finish(then)
        engine.verify()
        result = then.result
        steps = {step.task_id: (step.status, step.output, step.attempt, step.compensation) for step in result.results}
        began = [(one.step, one.run, one.attempt, one.purpose) for one in engine._worker.handed]
        assert len(began) == len(set(began)), f"an attempt began twice: {began}"
        assert not engine.dead
        return then, then.happened, {"status": result.status, "steps": steps}
    finally:
        engine.close(check=False)


@some
@given(plans(), faults, st.lists(st.integers(0, 4), max_size=4), st.booleans())
def test_executors_that_die_change_nothing(plan: Plan, faults: dict[str, str], crashes: list[int], always: bool) -> None:
    """The same steps end in the same way, no attempt begins twice, and what runs one after the other has the same history."""
    _, happened, outcome = tried(plan, faults, [], always=False)
    _, again, outcome_again = tried(plan, faults, crashes, always=always)
    assert outcome_again == outcome
    assert sorted(again) == sorted(happened)
    if not any(step.parallel for step in plan.graph.steps):
        assert again == happened


@some
@given(plans(), faults)
def test_every_run_of_a_test_is_the_same(plan: Plan, faults: dict[str, str]) -> None:
    """Two runs write the same bytes: ids, times and all."""
    first, second = (tried(plan, faults, [], always=False)[0] for _ in range(2))
    assert [one.data for one in first._engine._log.histories[first.id]] == [
        one.data for one in second._engine._log.histories[second.id]
    ]

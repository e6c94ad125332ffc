"""Who has been silent is nudged, however many there are, and ever more seldom."""

from typing import Any, NamedTuple

import pytest
from eventsourcing.persistence import Tracking

from projections import nudging
from projections.executions import EXECUTIONS
from projections.memory import MemoryView
from projections.nudging import Nudger


class Kept(NamedTuple):
    """As much of a runner as is asked for."""

    view: MemoryView
    state: str = "working"


def with_silent(count: int) -> Kept:
    view = MemoryView("executions", [EXECUTIONS])
    with view.change(Tracking("executions", 1)):
        view.put(EXECUTIONS, [EXECUTIONS.row(f"e{n}", n, "pending", "a", "b", n, b"") for n in range(count)])
    return Kept(view)


class Told:
    def __init__(self) -> None:
        self.ids: list[str] = []

    async def __call__(self, execution: str) -> None:
        self.ids.append(execution)

    def taken(self) -> list[str]:
        ids, self.ids = self.ids, []
        return ids


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(nudging, "monotonic", lambda: clock[0])
    return clock


async def test_many_that_wait_keep_nobody_from_being_nudged(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more are silent than are looked at in a round, the next round goes on behind them; then it begins anew."""
    monkeypatch.setattr(nudging, "_AT_ONCE", 10)
    told, runner = Told(), with_silent(25)
    nudger: Any = Nudger(runner, told, silent_s=1)  # type: ignore[arg-type]
    for _ in range(3):
        await nudger.round()
    assert sorted(told.taken()) == sorted(f"e{n}" for n in range(25))
    for _ in range(3):
        await nudger.round()
    assert told.taken() == []
    clock[0] += 1
    for _ in range(3):
        await nudger.round()
    assert sorted(told.taken()) == sorted(f"e{n}" for n in range(25))


async def test_ever_more_seldom(clock: list[float]) -> None:
    """After the time of silence, then twice that, and so on; anew once something has happened."""
    told, runner = Told(), with_silent(1)
    nudger: Any = Nudger(runner, told, silent_s=1)  # type: ignore[arg-type]
    at = []
    for _ in range(16):
        await nudger.round()
        at += [clock[0] - 100 for _ in told.taken()]
        clock[0] += 0.5
    assert at == [0, 1, 3, 7]
    with runner.view.change(Tracking("executions", 2)):
        runner.view.put(EXECUTIONS, [EXECUTIONS.row("e0", 0, "running", "a", "b", 5, b"")])
    await nudger.round()
    assert told.taken() == ["e0"]

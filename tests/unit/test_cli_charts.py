"""`analyze` and `timeline` as they are printed: numbers, and a chart that fits."""

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from esexec.cli.charts import analysis, chart, iso
from esexec.cli.progress import Progress
from esexec.domain.measures import Measured
from esexec.results import result_of, update_of
from projections.gantt import gantt
from projections.metrics import metrics_of
from projections.timeline import timeline
from projections.usage import usage_in
from tests.given import History, at, completed, due, failed, given, granted, start, started, step


def printed(content: RenderableType, width: int = 100) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False, emoji=False).print(content)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def analysed(history: History, seconds: float) -> list[str]:
    result = result_of(history.state)
    result.metrics = metrics_of(history.commits, at(seconds))
    result.timeline, result.resource_usage = timeline(history.commits), usage_in(history.commits, at(seconds))
    return printed(analysis(result))


def drawn(history: History, seconds: float, width: int = 100) -> list[str]:
    found = gantt(history.commits, at(seconds))
    assert found is not None
    return printed(chart(found, width), width)


RETRIED = History()
RETRIED.happen(start("a", step("b", "a"), config={"jitter": 0.0}), when=0)
RETRIED.happen(failed("a", measured=Measured(cost=0.5)), when=1)
RETRIED.happen(due("a"), when=2)
RETRIED.happen(completed("a", None, 2, began=2, ended=4, measured=Measured(cost=1.0, quality=0.9)), when=4)
RETRIED.happen(completed("b", began=5, ended=8), when=8)


def test_the_numbers_of_an_execution() -> None:
    """Duration, efficiency, cost, quality, throughput, errors and success, each with its unit; and when what happened."""
    lines = analysed(RETRIED, 8)
    told = {line[:12].strip(): line[14:] for line in lines[:11]}
    assert told == {
        "execution": "e1",
        "plan": told["plan"],
        "status": "completed",
        "duration": "8.0 s",
        "efficiency": "75 % (handlers ran for 6.0 s)",
        "cost": "$1.50",
        "quality": "90 %",
        "throughput": "0.25 tasks/s",
        "errors": "33.3 % (1 of 3 attempts)",
        "success": "100 % (2 of 2 steps completed)",
        "resource use": "–",
    }
    assert lines[lines.index("timeline") + 1] == "2026-01-01T00:00:00.000Z  execution of p created"
    assert lines[-1] == "2026-01-01T00:00:08.000Z  execution completed"


def test_what_is_not_known_is_a_dash() -> None:
    """Before anything has ended there are no rates; what is held is told as of now."""
    history = History()
    history.happen(start(step("a", resources=[{"type": "gpu", "amount": 2}])), when=0)
    history.happen(granted("a", by="resources"), when=0)
    history.happen(started("a", began=2), when=2)
    lines = analysed(history, 4)
    assert [line for line in lines if line.endswith(" –")] == ["quality       –"]
    assert "errors        – (0 of 0 attempts)" in lines
    assert "gpu  2  still held  $4  used 50 %" in lines


def test_a_row_for_each_attempt() -> None:
    """Each waits, or not, and runs, where on the line it did; an attempt that failed is told apart."""
    assert drawn(RETRIED, 8, width=60) == [
        "   execution                                         8.0 s",
        "✗  a          █████                                  1.0 s",
        "✓  a #2           ·····█████████                     2.0 s",
        "✓  b                            ░░░░░██████████████  3.0 s",
        "",
        "· waits for its retry   ░ waits for a worker   █ runs",
    ]


@pytest.mark.parametrize("width", [20, 40, 80, 200, 10_000])
def test_a_chart_fits_its_width(width: int) -> None:
    """However narrow or wide, no line is wider, and the bars are at most so long."""
    long = given(start(step("a" * 60), "b"), started("a" * 60))
    for line in [*drawn(RETRIED, 8, width), *drawn(long, 60, width)]:
        assert len(line) <= min(width, 140)


def test_what_runs_is_drawn_until_now() -> None:
    """An open attempt goes on to the end of the line."""
    history = given(start("a"), started("a", began=1))
    line = next(line for line in drawn(history, 11) if " a " in line)
    assert line.startswith("◉") and line.count("█") == 60 and line.endswith("10.0 s")


def test_times_are_iso() -> None:
    """UTC, with milliseconds."""
    assert iso(at(1.5)) == "2026-01-01T00:00:01.500Z"


@pytest.mark.parametrize(
    ("remaining_ms", "words"), [(None, "50 %, 1 of 2 steps"), (12_400, "50 %, 1 of 2 steps, about 12.4 s left")]
)
def test_the_picture_tells_what_is_left(remaining_ms: int | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is known, it stands beside the bar, and goes down with the clock."""
    history = given(start("a", "b"), completed("a"))
    picture = Progress()
    for event in history.events:
        picture.apply(event)
    monkeypatch.setattr("esexec.cli.progress.datetime", _Stopped)
    picture.left(update_of(history.state, [], remaining_ms))
    assert printed(picture, 120)[-1].endswith(words)
    monkeypatch.setattr(_Stopped, "time", at(0) + timedelta(seconds=2))
    if remaining_ms:
        assert printed(picture, 120)[-1].endswith("about 10.4 s left")


class _Stopped:
    time = at(0)

    @classmethod
    def now(cls, tz: Any) -> Any:
        return cls.time

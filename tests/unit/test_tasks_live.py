"""What a handler tells while it runs: bounded, throttled, and never its failure."""

import threading
import time
from typing import Any

import msgspec
import pytest

from esexec.domain import limits
from esexec.domain.messages import Dispatch, LogSignal, ProgressSignal
from esexec.tasks import Context


class Outlet:
    """Keeps what was sent."""

    worker = "w"

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def send(self, execution_id: str, kind: str, data: bytes) -> None:
        assert execution_id == "e"
        self.sent.append((kind, data))

    @property
    def lines(self) -> list[LogSignal]:
        return [msgspec.json.decode(data, type=LogSignal) for kind, data in self.sent if kind == "log"]

    @property
    def progress(self) -> list[ProgressSignal]:
        return [msgspec.json.decode(data, type=ProgressSignal) for kind, data in self.sent if kind == "progress"]


@pytest.fixture
def outlet() -> Outlet:
    return Outlet()


@pytest.fixture
def ctx(outlet: Outlet) -> Context:
    return Context(Dispatch(execution_id="e", step="s", task="t", attempt=2, run=3), outlet=outlet)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of what is told, set by the test."""
    at = [1000.0]
    monkeypatch.setattr("esexec.tasks.live.time.monotonic", lambda: at[0])
    return at


# Log lines -----------------------------------------------------------------------------------------------------------------


def test_a_line_says_whose_it_is_and_what_belongs_to_it(ctx: Context, outlet: Outlet) -> None:
    """Level, message and fields, with the execution, step, attempt, run, worker and time."""
    ctx.log.info("loaded", rows=12, file="a.csv")
    ctx.log.debug("d")
    ctx.log.warning("w")
    ctx.log.error("e", message="may be a field too", level=3)
    first = outlet.lines[0]
    assert (first.execution_id, first.step, first.attempt, first.run, first.worker) == ("e", "s", 2, 3, "w")
    assert (first.level, first.message, first.fields) == ("info", "loaded", {"rows": 12, "file": "a.csv"})
    assert first.time.tzinfo is not None
    assert [line.level for line in outlet.lines] == ["info", "debug", "warning", "error"]
    assert outlet.lines[3].fields == {"message": "may be a field too", "level": 3}


def test_a_message_takes_arguments_as_in_logging(ctx: Context, outlet: Outlet) -> None:
    """`%s` and `%(name)s`; what does not fit is told all the same, and raises nothing."""
    ctx.log.info("a %s, %d", "b", 3, rows=12)
    ctx.log.info("a %(city)s", {"city": "Oslo"})
    ctx.log.info("100 % sure")
    ctx.log.info("no place", "b", Unprintable())
    ctx.log.info("a %d", "b")
    ctx.log.info(7, 8)  # type: ignore[arg-type]
    messages = ["a b, 3", "a Oslo", "100 % sure", "no place b <Unprintable>", "a %d b", "7 8"]
    assert [line.message for line in outlet.lines] == messages
    assert outlet.lines[0].fields == {"rows": 12}


def test_critical_and_exception_are_errors(ctx: Context, outlet: Outlet) -> None:
    """Whoever is used to them may say them."""
    ctx.log.critical("c %s", 1, rows=1)
    ctx.log.exception("e")
    assert [(line.level, line.message) for line in outlet.lines] == [("error", "c 1"), ("error", "e")]


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def _deep() -> Any:
    value: Any = 1
    for _ in range(5_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [object(), Unprintable(), float("nan"), "\ud800", _deep(), {1: {2, 3}}, b"\xff", lambda: 1, 1 << 80], ids=type
)
def test_no_value_fails_a_handler(ctx: Context, outlet: Outlet, value: Any) -> None:
    """Whatever is logged, as a message or as a field, is told in some form that can be read again."""
    ctx.log.info(value, field=value)
    assert len(outlet.lines) == 1
    assert len(outlet.sent[0][1]) < 2 * limits.live_text_chars


def test_what_is_too_long_is_cut(ctx: Context, outlet: Outlet) -> None:
    """A message ends with an ellipsis, fields that are too large are named and left out."""
    ctx.log.info("x" * 100_000, short=1, blob="y" * 100_000)
    line = outlet.lines[0]
    assert (len(line.message), line.message[-1]) == (limits.live_text_chars, "…")
    assert line.fields["fields_left_out"] == ["short", "blob"]
    ctx.progress(0.5, "z" * 100_000)
    assert len(outlet.progress[0].text) == limits.live_text_chars


def test_a_flood_of_lines_is_left_out_and_counted(ctx: Context, outlet: Outlet, clock: list[float]) -> None:
    """More than `log_lines_per_second` are not sent; the next line that is says how many were not, or the end does."""
    for number in range(limits.log_lines_per_second + 7):
        ctx.log.info(f"line {number}")
    assert len(outlet.lines) == limits.log_lines_per_second
    clock[0] += 1
    ctx.log.info("later")
    assert (outlet.lines[-1].message, outlet.lines[-1].left_out) == ("later", 7)
    for _ in range(limits.log_lines_per_second):
        ctx.log.info("again")
    ctx.log.end()
    assert (outlet.lines[-1].level, outlet.lines[-1].left_out) == ("warning", 1)


# Progress ------------------------------------------------------------------------------------------------------------------


def test_progress_is_thinned_out_and_the_last_is_sent(ctx: Context, outlet: Outlet, clock: list[float]) -> None:
    """The first is sent at once; of what follows within the interval only the last, when the worker looks or at the end."""
    for part in range(11):
        ctx.progress(part / 100, f"row {part}")
    assert [signal.fraction for signal in outlet.progress] == [0.0]
    assert ctx.voice is not None
    ctx.voice.look_after(clock[0])
    assert len(outlet.progress) == 1
    clock[0] += limits.progress_interval_ms / 1000
    ctx.voice.look_after(clock[0])
    assert [(signal.fraction, signal.text) for signal in outlet.progress] == [(0.0, "row 0"), (0.1, "row 10")]
    ctx.progress(0.9)
    ctx.voice.end()
    assert outlet.progress[-1].fraction == 0.9
    ctx.voice.end()
    assert len(outlet.progress) == 3


@pytest.mark.parametrize(("said", "told"), [(-1, 0.0), (2, 1.0), (float("inf"), 1.0), (0.25, 0.25), (True, 1.0)])
def test_progress_is_kept_between_0_and_1(ctx: Context, outlet: Outlet, said: float, told: float) -> None:
    """A handler that counts wrong is not failed for it."""
    ctx.progress(said)
    assert outlet.progress[0].fraction == told


@pytest.mark.parametrize("said", [float("nan"), "half", None, [], 1j])
def test_what_is_no_progress_is_a_warning(ctx: Context, outlet: Outlet, said: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is said in the worker's log, and nothing is sent."""
    ctx.progress(said)
    assert outlet.sent == []
    assert "is no progress" in caplog.text


def test_threads_may_tell_as_well(ctx: Context, outlet: Outlet) -> None:
    """Lines of several threads of a handler are all sent, up to the limit of the attempt."""
    threads = [threading.Thread(target=lambda: [ctx.log.info("x") for _ in range(10)]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outlet.lines) == 50


def test_the_test_of_a_handler_needs_no_worker() -> None:
    """Without an outlet what is told goes nowhere, and nothing is made for a handler that tells nothing."""
    ctx = Context(Dispatch(execution_id="e", step="s", task="t"))
    assert (ctx.voice, ctx.measured) == (None, None)
    ctx.progress(0.5, "half")
    ctx.log.info("half", at=time.time())
    assert ctx.measured is None

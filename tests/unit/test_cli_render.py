"""What a terminal is shown: live, plain, narrow; and that nothing a handler says can harm it."""

import io
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
from rich.console import Console, RenderableType

from esexec.cli import render
from esexec.cli.given import read_input, read_queues
from esexec.cli.progress import Progress, follow
from esexec.cli.terminal import is_live
from esexec.cli.text import clean
from esexec.client import Checkpoint
from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.checkpoints import StateView, TaskView
from esexec.domain.decider import Surroundings
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.evolve import fold
from esexec.domain.messages import Level
from esexec.domain.rollback import Undo, rollback_plan
from esexec.domain.strategies import Strategy
from esexec.results import ExecutionResult, ExecutionUpdate, LogMessage, TaskProgress, result_of, update_of
from projections.timeline import timeline
from tests.given import EXECUTION, History, advised, at, cancel, completed, failed, fatal, given, start, started, step, withdrawn

HOSTILE = "\x1b]0;title\x07\x1b[31m[bold]red[/bold]\u202e\x9b2J\r\n\tend"


def terminal(width: int, height: int = 30) -> Console:
    """A terminal of that size, on a string."""
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, markup=False, highlight=False, emoji=False
    )


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(history: History, *, width: int = 100, height: int = 30) -> list[str]:
    """The picture after a history, without colours."""
    progress = Progress()
    for event in history.events:
        progress.apply(event)
    console = Console(file=io.StringIO(), width=width, height=height, no_color=True)
    console.print(progress)
    return [line.rstrip() for line in shown(console).splitlines() if line.strip()]


def result(history: History) -> ExecutionResult:
    return result_of(fold(EXECUTION, history.commits))


async def updates(history: History) -> AsyncIterator[ExecutionUpdate]:
    """What a watcher hears, commit by commit."""
    for number, commit in enumerate(history.commits, 1):
        yield update_of(fold(EXECUTION, history.commits[:number]), list(commit.events))


# Text ------------------------------------------------------------------------------------------------------------------


def test_nothing_moves_the_cursor() -> None:
    """Control characters, escape sequences and changes of direction are written out; line ends become spaces."""
    assert clean("plain ä €") == "plain ä €"
    assert clean("\x1b[2J\x07\u202e\x9b") == "\\u001b[2J\\u0007\\u202e\\u009b"
    assert clean("a\r\n\tb") == "a   b"
    assert clean("\U000e0001") == "\\udb40\\udc01"


def test_clean_json_stays_json() -> None:
    """JSON that was made printable means the same."""
    value = {"k": HOSTILE + "\U000e0001"}
    text = clean(msgspec.json.encode(value).decode())
    assert text.isprintable()
    assert msgspec.json.decode(text) == value


# Live ------------------------------------------------------------------------------------------------------------------


def test_each_step_has_a_line() -> None:
    """The picture has a line per step in the plan's order: what it is doing, or how long it took."""
    history = given(start(step("a", description="the first"), step("b", "a"), step("c", "b")), completed("a"), started("b"))
    lines = drawn(history)
    assert lines[0] == "✓  a  the first  1.0 s"
    assert lines[1].startswith("◉  b             running for ")
    assert lines[2] == "·  c             pending"
    assert lines[3].endswith("1 of 3 steps")


def test_a_retry_is_counted_down() -> None:
    """A step that waits for its retry says why and for how long."""
    progress = Progress()
    for event in given(start("a"), failed("a", code="HTTP_503")).events:
        progress.apply(event)
    line = progress._lines["a"]
    assert line.state == "retrying"
    assert line.due is not None
    assert line.words(line.due - timedelta(seconds=0.8)) == "HTTP_503, again in 0.8 s"


def test_narrow_terminals_get_no_descriptions() -> None:
    """Below 84 columns descriptions are left out, and no line is wider than the terminal."""
    history = given(start(step("a" * 60, description="the first")))
    lines = drawn(history, width=50)
    assert "the first" not in "".join(lines)
    assert max(len(line) for line in lines) <= 50


def test_large_plans_show_where_things_happen() -> None:
    """Of more steps than fit, those are shown that do something, and how many are not."""
    steps = [step(f"s{number}", *([f"s{number - 1}"] if number else [])) for number in range(100)]
    history = given(start(*steps), *(completed(f"s{number}") for number in range(50)))
    lines = drawn(history, height=20)
    assert len(lines) <= 20
    assert any("s50" in line and "queued" in line for line in lines)
    assert any("and 86 more" in line for line in lines)
    assert lines[-1].endswith("50 of 100 steps")


def test_an_undoing_is_seen() -> None:
    """In a rollback each step says what undoes it, that it is undone, or that nothing undoes it."""
    history = given(start(step("a"), step("b", compensate="undo_b"), step("c")), completed("a"), completed("b"), fatal("c"))
    lines = drawn(history, width=80)
    assert lines[1] == "↺  b  undo_b undoes it"
    assert lines[-1] == "rolling back"
    history.happen(completed("b", None, 2))
    lines = drawn(history, width=80)
    assert lines[:3] == ["✓  a  kept: nothing is known that undoes it", "↺  b  undone", "✗  c  failed: FATAL"]


def test_an_undoing_that_is_given_up_is_seen() -> None:
    """If a rollback is cancelled while an undoing waits for its retry, that step is not undone, and nothing is counted down."""
    history = given(start(step("a", compensate="undo"), "b"), completed("a"), fatal("b"), failed("a", 2), cancel())
    assert history.state.status == "cancelled"
    assert drawn(history, width=80)[0] == "✗  a  not undone: the rollback was cancelled"


def test_a_new_run_shows_what_it_keeps() -> None:
    """After a retry the steps that are kept stay completed, the others begin again."""
    history = given(start("a", "b", config={"enable_rollback": False}), completed("a"), fatal("b"))
    assert drawn(history, width=80)[1] == "✗  b  failed: FATAL"
    history.happen(c.RetryExecution(id="k"))
    lines = drawn(history, width=80)
    assert lines[0].startswith("✓  a")
    assert lines[1] == "○  b  queued"
    assert lines[-1].endswith("1 of 2 steps")


def test_a_standstill_is_explained() -> None:
    """A paused execution says so and why; one that is not due says when it is."""
    assert drawn(given(start("a"), c.PauseExecution(id="k", reason="lunch")))[-1] == "paused: lunch"
    assert drawn(given(start("a", start_at=at(60))))[-1] == "starts at 2026-01-01 00:01:00 UTC"


# Plain -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "environment", "live"),
    [(100, {}, True), (40, {}, True), (39, {}, False), (100, {"NO_COLOR": "1"}, False), (100, {"TERM": "dumb"}, False)],
)
def test_when_a_picture_is_redrawn(width: int, environment: dict[str, str], live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture needs a terminal of some width that takes colours; otherwise there are plain lines."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_live(terminal(width)) is live


async def test_plain_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain lines hold no escape sequences, whatever a handler said; an attempt told at once is one line."""
    history = given(start("a"), failed("a", code=HOSTILE))
    await follow(updates(history), Console(width=10_000))
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0] == "  0 %  execution of p created"
    assert not any("started" in line and line.startswith("  0 %  a") for line in lines)
    assert any("a is tried again in" in line for line in lines)


async def test_what_goes_on_is_told_from_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever has just retried an execution is told what follows, not how it failed before."""
    history = given(start("a"), fatal("a"), c.RetryExecution(id="k"))
    past = update_of(history.state, history.events)

    async def from_the_middle() -> AsyncIterator[ExecutionUpdate]:
        yield past
        history.happen((completed("a")[0], "a", "2-1"))
        yield update_of(history.state, list(history.commits[-1].events))

    await follow(from_the_middle(), Console(width=10_000), again=True)
    words = [line.split("%  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert words == ["execution retried, as run 2", "a completed in 1.0 s", "execution completed"]


async def test_the_past_is_told_with_the_progress_of_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever follows what has ended long ago sees how far it was at each line, not 100 % on all of them."""
    history = given(start("a", "b"), completed("a"), completed("b"))

    async def all_at_once() -> AsyncIterator[ExecutionUpdate]:
        yield update_of(history.state, history.events)

    await follow(all_at_once(), Console(width=10_000))
    assert capsys.readouterr().out.splitlines() == [
        "  0 %  execution of p created",
        "  0 %  execution started",
        " 50 %  a completed in 1.0 s",
        "100 %  b completed in 1.0 s",
        "100 %  execution completed",
    ]


# Results ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 200])
def test_nothing_hostile_is_shown(width: int) -> None:
    """Results, errors, steps and timelines of hostile executions hold no sequence but our own colours, at any width."""
    ended = given(start("a"), completed("a", {"word": HOSTILE, HOSTILE: [HOSTILE]}))
    broken = given(start("a"), failed("a", code=HOSTILE, retryable=False))
    paused = given(start("a", parent=HOSTILE), c.PauseExecution(id="k", reason=HOSTILE))
    undone = given(start(step("a", compensate="undo")), completed("a", {HOSTILE: 1}), c.RollbackExecution(id="k", reason=HOSTILE))
    undone.happen(failed("a", 2, code=HOSTILE, retryable=False))
    for history in (ended, broken, paused, undone):
        console = Console(file=io.StringIO(), width=width, no_color=True, markup=False)
        entries = timeline(history.commits)
        console.print(render.outcome(result(history), stacks=True), render.execution(result(history)))
        console.print(render.story(entries), render.history(entries))
        console.print(render.rollback_plan([(undo, None) for undo in rollback_plan(history.state)]))
        assert all(char.isprintable() or char == "\n" for char in shown(console))


def test_who_waits_for_a_concurrency_key_is_said_to() -> None:
    """An execution that has not begun says why: `pending` alone could be anything."""
    key = {"config": {"concurrency": {"key": "all"}}}
    console = Console(file=io.StringIO(), width=80, no_color=True)
    console.print(render.outcome(result(given(start("a", plan_fields=key)))))
    assert "pending (waits for its concurrency key)" in shown(console)


def test_simple_results_are_a_table() -> None:
    """A flat object is shown as names and values; anything deeper as JSON, cut after some lines."""
    console = Console(file=io.StringIO(), width=80, no_color=True)
    console.print(render.value({"shipments": 12345, "ok": True, "note": None}))
    assert [line.split() for line in shown(console).splitlines()] == [["shipments", "12,345"], ["ok", "yes"], ["note", "–"]]
    console = Console(file=io.StringIO(), width=80, no_color=True)
    console.print(render.value(list(range(1000))))
    assert "more lines; --json has all" in shown(console).splitlines()[-1]


def test_an_error_says_where() -> None:
    """An error is told with its code, step, attempt, place in the code, and hint."""
    stack = 'Traceback (most recent call last):\n  File "/a/tasks.py", line 12, in create\n    x()\n'
    error = ErrorInfo(type="execution_error", code="KEY", message="no", task_id="a", attempt=2, stack=stack, hint="look")
    console = Console(file=io.StringIO(), width=80, no_color=True)
    console.print(render.failure(error))
    assert shown(console).splitlines() == [
        "error [KEY]: no",
        "in step a, attempt 2",
        "raised at /a/tasks.py:12 in create",
        "hint: look",
    ]


def test_a_story_leaves_out_what_says_nothing() -> None:
    """The short timeline has no line for what is scheduled, nor for a start that was told together with its end."""
    entries = timeline(given(start("a"), completed("a")).commits)
    console = Console(file=io.StringIO(), width=80, no_color=True)
    console.print(render.story(entries))
    words = [line.split(" s  ", 1)[1].rstrip() for line in shown(console).splitlines()]
    assert words == ["execution of p created", "execution started", "a completed in 1.0 s", "execution completed"]


def lines_of(content: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=200, no_color=True)
    console.print(content)
    return [line.rstrip() for line in shown(console).splitlines()]


def test_everything_known_is_shown() -> None:
    """Run, times and origins are shown where there are any; so is how a step was undone."""
    history = given(
        start(step("a", compensate="undo"), step("b"), start_at=at(-1), deadline=at(90), parent="e0/s", forked_from="e9"),
        c.CreateCheckpoint(id="k"),
        completed("a", 1),
    )
    assert "deadline         2026-01-01 00:01:30 UTC" in lines_of(render.execution(result(history)))
    history.happen(fatal("b"))
    history.happen(completed("a", None, 2))
    words = "\n".join([*lines_of(render.execution(result(history))), *lines_of(render.outcome(result(history)))])
    for said in (
        "started by       e0/s",
        "carries on from  e9",
        "checkpoints      1, last e1.",
    ):
        assert said in words
    assert "↺ rolled back" in words
    assert "1 undone" in words
    assert "error [FATAL]" in words


def steps_of(history: History) -> list[str]:
    """The lines of the steps, as `show` has them."""
    return [line for line in lines_of(render.execution(result(history))) if line.startswith(("✓", "✗", "–"))]


def test_a_step_tells_how_often_it_was_tried() -> None:
    """Retries of its work beside questions to strategies, and that there are no more of these; no number that another line,
    which names the attempt that failed, would contradict."""
    around = Surroundings(strategies=(Strategy(id="again"),))
    history = given(start("a"), fatal("a"), around=around)
    for number in range(limits.recoveries_per_step):
        history.happen(advised("a", "retry", 2 * number + 2))
        history.happen(fatal("a", 2 * number + 3))
    assert steps_of(history) == ["✗  a  failed  1.0 s  10 retries, 10 recoveries (no more are tried), [FATAL] it is FATAL"]


def test_what_is_not_undone_is_shown_with_its_reason() -> None:
    """A failed undoing says why; one that was given up or never begun says that it is not undone; all are named in one line."""
    undo = {"compensate": "undo"}
    history = given(start(step("a"), step("b", **undo), step("c", **undo), "d"), *(completed(id) for id in "abc"), fatal("d"))
    history.happen(fatal("c", 2))
    history.happen(cancel())
    history.happen(withdrawn("b", 2))
    assert steps_of(history)[:3] == [
        "✓  a  completed  1.0 s  not undone",
        "✓  b  completed  1.0 s  not undone: [cancelled] the rollback was cancelled",
        "✓  c  completed  1.0 s  could not be undone by undo: [FATAL] it is FATAL",
    ]
    assert "rolled back in part; not undone: c, b, a" in lines_of(render.outcome(result(history)))


def test_what_cannot_be_undone_is_named_even_if_nothing_was_tried() -> None:
    """With `on_missing_compensation: fail` the steps that nothing undoes are what is left."""
    config = {"on_missing_compensation": "fail"}
    history = given(start("a", step("b", compensate="undo"), "c", config=config), completed("a"), completed("b"), fatal("c"))
    history.happen(completed("b", None, 2))
    assert "rolled back in part; not undone: a" in lines_of(render.outcome(result(history)))
    assert steps_of(history)[0] == "✓  a  completed  1.0 s  nothing undoes it"


def test_how_long_it_took_is_said_of_the_run() -> None:
    """After a retry the time counts from there: not the days in which nobody did anything."""
    history = given(start("a"), fatal("a"))
    assert lines_of(render.outcome(result(history)))[0].startswith("✗ failed in 1.0 s, ")
    history.happen(c.RetryExecution(id="k"), when=300_000)
    history.happen(completed("a", run=2))
    assert lines_of(render.outcome(result(history)))[0].startswith("✓ completed in 1.0 s of run 2, ")


def test_a_pause_is_shown() -> None:
    """A paused execution is shown with its reason."""
    lines = lines_of(render.outcome(result(given(start("a"), c.PauseExecution(id="k", reason="lunch")))))
    assert lines[0].startswith("‖ paused")
    assert lines[1] == "paused: lunch"


def test_a_dry_run_is_a_table() -> None:
    """The plan of a rollback has a line per step in the order of undoing: since when, by what, with which params."""
    undos = [Undo("b", "undo_b", params={"id": 1}), Undo("a", None, "no_compensation"), Undo("c", "undo_c", certain=False)]
    lines = lines_of(render.rollback_plan([(undo, at(0) if undo.certain else None) for undo in undos]))
    assert [line.split() for line in lines] == [
        ["step", "completed", "undone", "by", "params"],
        ["1", "b", "2026-01-01", "00:00:00", "UTC", "undo_b", '{"id":1}'],
        ["2", "a", "2026-01-01", "00:00:00", "UTC", "–", "nothing", "is", "known", "that", "undoes", "it"],
        ["3", "c", "not", "known", "undo_c"],
    ]
    assert lines_of(render.rollback_plan([])) == ["nothing to undo"]


def test_checkpoints_are_shown() -> None:
    """A checkpoint is shown with when it was made and by what; alone with every step and the variables."""
    state = StateView(
        task_states={"a": TaskView(status="completed"), "b": TaskView(status="pending")}, variables={"city": "Lyon"}
    )
    made = Checkpoint(
        id="e1.7", execution_id="e1", timestamp=at(0), n=3, version=7, position=9, hash="f00", by="task", state=state
    )
    assert [line.split() for line in lines_of(render.checkpoints([made]))] == [["e1.7", "2026-01-01", "00:00:00", "UTC", "task"]]
    assert lines_of(render.checkpoints([])) == ["no checkpoints"]
    lines = lines_of(render.checkpoint(made))
    assert "✓  a  completed" in lines
    assert "·  b  pending" in lines
    assert "city  Lyon" in lines


# What is given ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "queues"),
    [
        (None, {"default": 10}),
        (["a"], {"a": 10}),
        (["a", "b=3"], {"a": 10, "b": 3}),
    ],
)
def test_queues(given: list[str] | None, queues: dict[str, int]) -> None:
    """A queue takes the general number of slots unless it says its own."""
    assert read_queues(given, 10) == queues


@pytest.mark.parametrize("given", [["a", "a=2"], ["a="], ["=2"], ["a=x"], ["a=0"], ["_a"], [""], ["a=1=2"], ["a=²"]])
def test_queues_that_cannot_be(given: list[str]) -> None:
    """Whatever is no queue is refused by its code."""
    with pytest.raises(ValidationError) as refused:
        read_queues(given, 10)
    assert refused.value.code == "bad_queue"


@pytest.mark.parametrize("text", ["", "{", "nope", "NaN", "[" * 100_000, '"\ud800"', "1" * 5000, "@/"])
def test_input_that_cannot_be(text: str) -> None:
    """Whatever is no JSON is refused by its code."""
    with pytest.raises(ValidationError) as refused:
        read_input(text)
    assert refused.value.code == "bad_input"


# What handlers tell --------------------------------------------------------------------------------------------------------


def _told(history: History, *messages: LogMessage, **progress: float) -> ExecutionUpdate:
    update = update_of(history.state, [])
    update.messages = list(messages)
    update.task_progress = {step: TaskProgress(fraction=part, text="row 7", time=at(0)) for step, part in progress.items()}
    return update


def _line(level: Level, message: str, **context: object) -> LogMessage:
    return LogMessage(level=level, message=message, time=at(0), task_id="a", context=context)


@pytest.mark.parametrize("debug", [False, True])
async def test_what_handlers_tell_is_shown_in_lines(capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    """Log lines as they come, those of `debug` if wanted; progress when it has moved by a tenth. Nothing hostile gets through."""
    history = given(start("a"), started("a"))

    async def as_told() -> AsyncIterator[ExecutionUpdate]:
        yield update_of(history.state, history.events)
        yield _told(history, _line("info", "loaded", rows=12, file="a.csv"), _line("debug", "row"), _line("error", HOSTILE))
        for part in (0.0, 0.05, 0.4, 0.45, 0.5):
            yield _told(history, a=part)

    await follow(as_told(), Console(width=10_000), debug=debug)
    lines = capsys.readouterr().out.splitlines()[3:]
    assert all(line.isprintable() for line in lines)
    assert lines[0] == "   info  a: loaded  rows=12  file=a.csv"
    assert ("  debug  a: row" in lines) is debug
    assert lines[-3:] == ["         a: 0 %, row 7", "         a: 40 %, row 7", "         a: 50 %, row 7"]


def test_progress_stands_beside_its_step() -> None:
    """In the picture, for as long as the step runs."""
    history = given(start("a"), started("a"))
    progress = Progress()
    for event in history.events:
        progress.apply(event)
    progress.told = {"a": TaskProgress(fraction=0.4, text="half way", time=at(0))}
    console = terminal(100)
    console.print(progress)
    assert ": 40 %, half way" in shown(console)

"""What every command means in every state of an execution: the table, written by hand.

The execution has three parallel steps, a, b and z, each of which something undoes; a checkpoint was made right after its start.
"""

from itertools import product
from typing import NamedTuple, get_args

import pytest

from esexec.domain import commands as c
from esexec.domain.decider import Surroundings
from esexec.domain.settings import TaskInfo
from esexec.domain.state import phase_of
from esexec.domain.strategies import Strategy
from tests.given import (
    History,
    Message,
    TimerOf,
    at,
    cancel,
    checkpoint,
    completed,
    failed,
    fatal,
    given,
    pause,
    restore,
    resume,
    retry,
    rollback,
    start,
    undone,
    withdrawn,
)

AROUND = Surroundings(
    tasks={step: TaskInfo(compensate=f"undo_{step}") for step in "abz"},
    strategies=(Strategy(id="s", applicable_errors=("ASK",)),),
)
PLAN = {"plan_fields": {"parallel": True}}


def begun(**config: object) -> list[Message | TimerOf]:
    return [start("a", "b", "z", config=config, **PLAN), checkpoint("c-3")]


FAILED: list[Message | TimerOf] = [completed("a"), completed("b"), fatal("z")]


class State(NamedTuple):
    """How an execution gets into a state, and the status and phase that it shows then."""

    shows: str
    messages: list[Message | TimerOf]


STATES: dict[str, State] = {
    "absent": State("pending, queued", []),
    "scheduled": State("pending, scheduled", [start("a", "b", "z", start_at=at(60), **PLAN), checkpoint("c-3")]),
    "running": State("running, executing", begun()),
    "paused": State("paused, executing", [*begun(), pause("p")]),
    "recovering": State("running, recovering", [*begun(), failed("z", code="ASK", retryable=False)]),
    "failing": State("running, failing", [*begun(), fatal("z")]),
    "cancelling": State("running, cancelling", [*begun(), cancel("c-9")]),
    "rolling back": State("running, rolling_back", [*begun(), *FAILED]),
    "rolling back, paused": State("paused, rolling_back", [*begun(), *FAILED, pause("p")]),
    "completed": State("completed, ended", [*begun(), completed("a"), completed("b"), completed("z")]),
    "failed": State("failed, ended", [*begun(enable_rollback=False), *FAILED]),
    "failed, partial": State("failed, ended", [*begun(), *FAILED, fatal("b", 2), undone("a")]),
    "cancelled": State("cancelled, ended", [*begun(), completed("a"), cancel("c-9"), withdrawn("b"), withdrawn("z")]),
    "rolled_back": State("rolled_back, ended", [*begun(), *FAILED, undone("b"), undone("a")]),
}

COMMANDS: dict[str, c.ExecutionCommand] = {
    "start": start("x", id="again"),
    "cancel": cancel("now"),
    "pause": pause("now"),
    "resume": resume("now"),
    "checkpoint": checkpoint("now"),
    "restore": restore("e1.6", id="now"),
    "restore ?": restore("e1.999", id="now"),
    "retry": retry(id="now"),
    "retry z": retry("z", id="now"),
    "retry as new": retry(id="now", as_new=True, new_id="e2"),
    "rollback": rollback("now"),
}

TABLE = """
state                | start     | cancel      | pause       | resume      | checkpoint    | restore       | restore ?
absent               | starts    | !not_found  | !not_found  | !not_found  | !not_found    | !not_found    | !not_found
scheduled            | !conflict | cancels abz | pauses      | ineffective | keeps         | !not_started  | !unknown_checkpoint
running              | !conflict | asks to end | pauses      | ineffective | keeps         | goes back abz | !unknown_checkpoint
paused               | !conflict | asks to end | ineffective | resumes     | keeps         | goes back     | !unknown_checkpoint
recovering           | !conflict | asks to end | pauses      | ineffective | keeps         | goes back abz | !unknown_checkpoint
failing              | !conflict | asks to end | pauses      | ineffective | keeps         | goes back abz | !unknown_checkpoint
cancelling           | !conflict | duplicate   | !ending     | ineffective | !ending       | !ending       | !unknown_checkpoint
rolling back         | !conflict | asks to end | pauses      | ineffective | !rolling_back | !rolling_back | !unknown_checkpoint
rolling back, paused | !conflict | asks to end | ineffective | resumes     | !rolling_back | !rolling_back | !unknown_checkpoint
completed            | !conflict | ineffective | !ended      | !ended      | !ended        | goes back abz | !unknown_checkpoint
failed               | !conflict | ineffective | !ended      | !ended      | !ended        | goes back abz | !unknown_checkpoint
failed, partial      | !conflict | ineffective | !ended      | !ended      | !ended        | goes back abz | !unknown_checkpoint
cancelled            | !conflict | ineffective | !ended      | !ended      | !ended        | goes back abz | !unknown_checkpoint
rolled_back          | !conflict | ineffective | !ended      | !ended      | !ended        | goes back abz | !unknown_checkpoint

state                | retry             | retry z           | retry as new      | rollback
absent               | !not_found        | !not_found        | !not_found        | !not_found
scheduled            | !not_ended        | !not_ended        | !not_ended        | !not_ended
running              | !not_ended        | !not_ended        | !not_ended        | !not_ended
paused               | !not_ended        | !not_ended        | !not_ended        | !not_ended
recovering           | !not_ended        | !not_ended        | !not_ended        | !not_ended
failing              | !not_ended        | !not_ended        | !not_ended        | !not_ended
cancelling           | !not_ended        | !not_ended        | !not_ended        | !not_ended
rolling back         | !not_ended        | !not_ended        | !not_ended        | !not_ended
rolling back, paused | !not_ended        | !not_ended        | !not_ended        | !not_ended
completed            | !nothing_to_retry | !nothing_to_retry | !nothing_to_retry | undoes z
failed               | runs again z      | runs again z      | forks             | undoes b
failed, partial      | runs again az     | runs again az     | forks             | undoes b
cancelled            | runs again bz     | !nothing_to_retry | forks             | undoes a
rolled_back          | runs again abz    | runs again abz    | forks             | !nothing_to_compensate
"""
"""`!code`: refused with that code; `ineffective`, `duplicate`: verdicts; else one of `MEANS`, with the steps that it concerns."""

MEANS: dict[str, tuple[str, str, str]] = {
    "starts": ("execution_created execution_started task_scheduled", "", ""),
    "asks to end": ("execution_cancel_requested", "", ""),
    "cancels": ("execution_cancel_requested", "task_cancelled", "execution_cancelled"),
    "pauses": ("execution_paused", "", ""),
    "resumes": ("execution_resumed", "", ""),
    "keeps": ("checkpoint_created", "", ""),
    "goes back": ("checkpoint_restored", "task_scheduled", ""),
    "runs again": ("execution_retried", "task_scheduled", ""),
    "forks": ("execution_forked", "", ""),
    "undoes": ("rollback_started", "compensation_scheduled", ""),
}
"""The words of the table as events: first these, then this for each step, then that."""


def cells() -> dict[tuple[str, str], str]:
    """The table, by state and command."""
    found: dict[tuple[str, str], str] = {}
    for half in TABLE.strip().split("\n\n"):
        (_, *commands), *rows = [[cell.strip() for cell in line.split("|")] for line in half.splitlines()]
        for state, *row in rows:
            for command, cell in zip(commands, row, strict=True):
                assert (state, command) not in found, f"{command} in {state} is said twice"
                found[state, command] = cell
    return found


def brought(state: str) -> History:
    return given(*STATES[state].messages, around=AROUND)


def asked(history: History, command: str) -> c.ExecutionCommand:
    """A command as it is given in a state; `restore` means the checkpoint that is there."""
    checkpoints = history.state.checkpoints
    return restore(next(iter(checkpoints)), id="now") if command == "restore" and checkpoints else COMMANDS[command]


def events_of(cell: str) -> list[str] | None:
    """The events that a cell of the table stands for; None: a verdict without any."""
    word = next((word for word in MEANS if cell.startswith(word)), None)
    if word is None:
        return None
    first, each, last = MEANS[word]
    steps = cell.removeprefix(word).strip()
    return [*first.split(), *(f"{each} {step}" for step in steps), *last.split()]


def test_every_pair_is_in_the_table() -> None:
    """No state and no command is left out; each verb of executions is among the commands."""
    assert set(cells()) == set(product(STATES, COMMANDS))
    assert {type(command) for command in COMMANDS.values()} == set(get_args(c.ExecutionCommand))


@pytest.mark.parametrize("state", STATES)
def test_a_state_is_what_its_name_says(state: str) -> None:
    """The messages lead to the status and the phase that the state is about."""
    reached = brought(state).state
    assert f"{reached.status}, {phase_of(reached)}" == STATES[state].shows
    assert (reached.rollback_status == "partial") == (state == "failed, partial")


@pytest.mark.parametrize(("state", "command"), list(product(STATES, COMMANDS)))
def test_a_command_in_a_state_means_what_the_table_says(state: str, command: str) -> None:
    """Events, a verdict, or a refusal with a code and a way out."""
    cell = cells()[state, command]
    history = brought(state)
    outcome, events = history.when(asked(history, command)), events_of(cell)
    if events is not None:
        assert outcome.then_types(*events).verdict.kind == "applied"
    elif cell.startswith("!"):
        error = outcome.then_nothing("refused").verdict.error
        assert error is not None
        assert (error.type, error.code) == ("validation_error", cell[1:])
        assert error.message
        assert error.hint
    else:
        assert outcome.then_nothing(cell).verdict.error is None


TAKE_NOTHING_BACK = ("checkpoint", "retry as new")
"""Commands that leave everything as it is, so that no later wish stands against them."""
APPLIED = [pair for pair, cell in cells().items() if events_of(cell) is not None and pair[0] != "absent"]


@pytest.mark.parametrize(("state", "command"), APPLIED)
def test_the_same_command_again_changes_nothing(state: str, command: str) -> None:
    """One that was carried out is `repeated`, and names its commit, also after the state has changed."""
    history = brought(state)
    message = asked(history, command)
    n = history.when(message).state.n
    assert history.when(message).then_nothing("repeated").verdict.n == n


@pytest.mark.parametrize(("state", "command"), [pair for pair in APPLIED if pair[1] not in TAKE_NOTHING_BACK])
def test_a_command_that_was_overtaken_is_superseded(state: str, command: str) -> None:
    """A wish from before the last one that was carried out is not carried out behind it, if it would undo it."""
    history = brought(state)
    history.when(asked(history, command), at=0.5).then_nothing("superseded")

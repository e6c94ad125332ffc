"""What the stories are about: which commands met which situations of an execution, and with what success."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from esexec.domain import commands as c
from esexec.domain.decision import Decision, Verdict
from esexec.domain.state import ExecutionState, phase_of
from esexec.executor import mailbox
from tests.simulation.answers import SITUATIONS

COMMANDS = (
    "start",
    "cancel",
    "pause",
    "resume",
    "retry",
    "retry step",
    "retry as_new",
    "rollback",
    "checkpoint",
    "restore",
    "restore unknown",
)
IMPOSSIBLE = {("absent", "restore")}
"""Where there is no execution there is no checkpoint of it."""

Pairs = Counter[tuple[str, str]]


def situation_of(state: ExecutionState) -> str:
    """The row of the table of commands, by the engine's own state."""
    if not state.exists:
        return "absent"
    if state.ended:
        return "partial" if state.status == "failed" and state.rollback_status == "partial" else state.status
    if state.paused:
        return "rolling_back_paused" if state.phase == "rolling_back" else "paused"
    return {"queued": "scheduled", "executing": "running"}.get(phase := phase_of(state), phase)


def command_of(state: ExecutionState, command: c.Command) -> str:
    match command:
        case c.RetryExecution():
            return "retry as_new" if command.as_new else "retry step" if command.step is not None else "retry"
        case c.RestoreCheckpoint():
            return "restore" if command.checkpoint_id in state.checkpoints else "restore unknown"
    return next(verb for verb, kind in c.VERBS.items() if kind is type(command))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Pairs, Pairs]]:
    """Counts all pairs of a situation and a command that are decided, and those that had an effect."""
    met: Pairs = Counter()
    applied: Pairs = Counter()

    def watched(decide: Callable[..., Verdict]) -> Callable[..., Verdict]:
        def decided(decision: Decision, command: Any, time: datetime) -> Verdict:
            pair = situation_of(decision.state), command_of(decision.state, command)
            verdict = decide(decision, command, time)
            if verdict.kind != "repeated":
                met[pair] += 1
                applied[pair] += verdict.kind == "applied"
            return verdict

        return decided

    with monkeypatch.context() as patch:
        for name in ("decide_control", "decide_start"):
            patch.setattr(mailbox, name, watched(getattr(mailbox, name)))
        yield met, applied


def missing(met: Pairs) -> list[tuple[str, str]]:
    return [
        (situation, command)
        for situation in SITUATIONS
        for command in COMMANDS
        if not met[situation, command] and (situation, command) not in IMPOSSIBLE
    ]


def table(met: Pairs, applied: Pairs) -> str:
    """Situations down, commands across: how often they met, and how often that had an effect."""
    lines = [" " * 20 + "".join(f"{command:>16}" for command in COMMANDS)]
    for situation in SITUATIONS:
        cells = [f"{met[situation, command]}/{applied[situation, command]}" for command in COMMANDS]
        lines.append(f"{situation:<20}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def counts(events: Counter[str]) -> str:
    """How often each event happened, the rarest first."""
    return "\n".join(f"{times:>7} {kind}" for kind, times in sorted(events.items(), key=lambda one: one[1]))

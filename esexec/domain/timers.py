"""Timers of a state: closing one that fired, or one that is not waited for any more."""

from esexec.domain.state import ExecutionState, TimerKind, table


def close_timer(state: ExecutionState, version: int, *, fired: bool = False) -> None:
    """A timer is not waited for any more; one that has not fired is cleared by this commit."""
    if state.timers.pop(version, None) is not None:
        table(state, "closed_timers")[version] = state.n
        if not fired:
            table(state, "cleared").setdefault(state.n, []).append(version)


def close_timers(state: ExecutionState, kind: TimerKind | None = None, *, fired: bool = False) -> None:
    """All timers of a kind, or all there are."""
    if state.timers:
        for version in [version for version, timer in state.timers.items() if kind is None or timer.kind == kind]:
            close_timer(state, version, fired=fired)

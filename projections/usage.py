"""What resources the steps of an execution used, and what that cost: commits in, usage out. Pure."""

from collections.abc import Sequence
from datetime import datetime

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.evolve import fold
from esexec.domain.flow import ResourceUsage, usage_of


def usage_in(commits: Sequence[Commit], now: datetime) -> list[ResourceUsage]:
    """In the order in which it ended; of what is held, as of `now`."""
    if not commits:
        return []
    state = fold(commits[0].execution_id, commits)
    released = [event for commit in commits for event in commit.events if isinstance(event, e.ResourceReleased)]
    used = [one for event in released for one in event.usage]
    for index in state.in_flight:
        step = state.steps[index]
        if step.gate is not None and step.gate.since is not None:
            busy_s = (now - step.started_at).total_seconds() if step.started_at is not None else 0.0
            used += [usage_of(one, step.gate.since, now, busy_s=busy_s, ongoing=True) for one in step.gate.resources]
    return used

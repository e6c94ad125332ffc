"""Who did what: which events of a commit are the carrying out of commands, and who gave these. Pure.

A commit names its commands, and who gave each of them, but not which of its events came of which. Every command on an execution
begins with one event of its own (`execution_paused`, …), in the order of the commands; what follows from it is nobody's doing.
"""

from esexec.domain import events as e
from esexec.domain.commit import Commit, actors_of

_OF_COMMANDS = (
    e.ExecutionCreated,
    e.ExecutionCancelRequested,
    e.ExecutionPaused,
    e.ExecutionResumed,
    e.ExecutionRetried,
    e.ExecutionForked,
    e.NamespaceConfigured,
    e.TasksAnnounced,
    e.StrategyAdded,
    e.StrategyRemoved,
    e.PlanStored,
    e.PlanListed,
    e.PoolDeclared,
    e.PoolRemoved,
    e.AlertSet,
    e.AlertRemoved,
    e.KeyBound,
)
_ALSO_OTHERWISE = (e.RollbackStarted, e.CheckpointCreated, e.CheckpointFailed, e.CheckpointRestored)
"""These say what they came `by`."""


def is_of_a_command(event: e.Event) -> bool:
    """Whether somebody wished just this."""
    return isinstance(event, _OF_COMMANDS) or (isinstance(event, _ALSO_OTHERWISE) and event.by == "command")


def actors_by_event(commit: Commit) -> dict[int, str]:
    """Who gave the command that an event is of, by the event's place in the commit, where that is known."""
    actors = actors_of(commit) or [commit.actor]
    if not any(actors):
        return {}
    found = _by_request(commit)
    places = [place for place, event in enumerate(commit.events) if is_of_a_command(event)]
    if len(places) != len(actors):  # a plan that is put is stored and listed; an allocation has no event of these
        said = list(dict.fromkeys(actors))
        actors = [said[0] if len(said) == 1 else None] * len(places)
    return found | {place: actor for place, actor in zip(places, actors, strict=True) if actor is not None}


def _by_request(commit: Commit) -> dict[int, str]:
    """Of those who asked for resources themselves: the request is called as the command is."""
    commands = [cause.id for cause in commit.commands if cause.is_command]
    given = dict(zip(commands, actors_of(commit), strict=True))
    asked = ((place, given.get(getattr(event, "request_id", ""))) for place, event in enumerate(commit.events))
    return {place: actor for place, actor in asked if actor is not None}

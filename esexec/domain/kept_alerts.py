"""The alerts that are set in a namespace (entity `_alerts`). Whether their conditions hold is for the projections to say."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.alerts import AlertCondition, alert_id_problem, condition_problem, webhook_problem
from esexec.domain.commit import Commit
from esexec.domain.errors import CorruptHistory, ErrorInfo

ALERTS_ENTITY = "_alerts"


class KeptAlert(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """An alert that is set, as it is since `set_at`. `webhook`: where it is posted as well."""

    alert_id: str
    condition: AlertCondition
    webhook: str | None = None
    set_at: datetime


class AlertsState(msgspec.Struct):
    """The folded `_alerts`: what is set, in the order in which it was set first."""

    n: int = 0
    version: int = 0
    alerts: dict[str, KeptAlert] = {}
    applied: dict[str, int] = {}


def fold_alerts(commits: Iterable[Commit], state: AlertsState | None = None) -> AlertsState:
    """The state after these commits. Raises `CorruptHistory` on a gap."""
    state = state or AlertsState()
    for commit in commits:
        if commit.n != state.n + 1:
            raise CorruptHistory(f"{ALERTS_ENTITY}: expected commit {state.n + 1}, found {commit.n}")
        state.n = commit.n
        for event in commit.events:
            state.version += 1
            match event:
                case e.AlertSet():
                    state.alerts[event.alert_id] = KeptAlert(
                        alert_id=event.alert_id, condition=event.condition, webhook=event.webhook, set_at=commit.time
                    )
                case e.AlertRemoved():
                    state.alerts.pop(event.alert_id, None)
        for cause in commit.commands:
            state.applied[cause.id] = commit.n
    return state


def decide_alerts(state: AlertsState, command: c.AlertsCommand) -> list[e.Event] | ErrorInfo:
    """The events of a command on `_alerts`, none if it changes nothing or was applied before; or why it is refused."""
    if command.id in state.applied:
        return []
    match command:
        case c.SetAlert():
            return _set(state, command)
        case c.RemoveAlert():
            if (problem := alert_id_problem(command.alert_id)) is not None:
                return problem
            return [e.AlertRemoved(alert_id=command.alert_id)] if command.alert_id in state.alerts else []


def _set(state: AlertsState, command: c.SetAlert) -> list[e.Event] | ErrorInfo:
    alert_id = command.id if command.alert_id is None else command.alert_id
    problem = alert_id_problem(alert_id) or condition_problem(command.condition)
    if problem is None and command.webhook is not None:
        problem = webhook_problem(command.webhook)
    if problem is not None:
        return problem
    known = state.alerts.get(alert_id)
    if known is None and len(state.alerts) >= limits.alerts:
        return ErrorInfo(
            type="validation_error",
            code="too_many_alerts",
            message=f"the namespace has {len(state.alerts)} alerts",
            hint=f"at most {limits.alerts} (limits.alerts); remove one that is not needed",
        )
    if known is not None and (known.condition, known.webhook) == (command.condition, command.webhook):
        return []
    return [e.AlertSet(alert_id=alert_id, condition=command.condition, webhook=command.webhook)]

"""The alerts that are set in the namespace: commands on `_alerts` are decided here."""

from collections.abc import Iterable

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.errors import ErrorInfo
from esexec.domain.kept_alerts import ALERTS_ENTITY, AlertsState, decide_alerts, fold_alerts
from esexec.executor.entity import EntityDesk
from esexec.executor.port import Outbox
from esexec.log.port import Log


class AlertsDesk(EntityDesk[AlertsState]):
    """See the module."""

    entity = ALERTS_ENTITY

    def __init__(self, name: str, log: Log, outbox: Outbox) -> None:
        super().__init__(name, log, outbox, AlertsState())

    def _fold(self, commits: Iterable[Commit], state: AlertsState) -> AlertsState:
        return fold_alerts(commits, state)

    def _decide(self, state: AlertsState, command: c.AlertsCommand) -> list[e.Event] | ErrorInfo:
        return decide_alerts(state, command)

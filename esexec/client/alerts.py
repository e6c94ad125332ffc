"""`client.alerts`: what somebody wants to be told of. Set in the namespace; a callback is called in this process.

An alert is watched by the projections, whoever set it, until it is removed. Callbacks hear of alerts while this client is open,
and once more of the last one after an outage; what must not be missed goes by the stream, or by a webhook.
"""

import asyncio
import builtins
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from esexec.client.entities import news_of
from esexec.client.queries import AlertConditions, alerts_asked
from esexec.domain import commands as c
from esexec.domain.alert_reading import SaidCondition, read_condition
from esexec.domain.alerts import Alert, alert_id_problem, webhook_problem
from esexec.domain.errors import EsexecError, ValidationError, to_exception
from esexec.domain.explain import quoted
from esexec.domain.kept_alerts import ALERTS_ENTITY, AlertsState, KeptAlert, fold_alerts
from esexec.nats.connection import Msg
from esexec.world import new_id
from projections.asks import AlertsPage

if TYPE_CHECKING:
    from esexec.client.client import Client

logger = logging.getLogger("esexec.client")

AlertCallback = Callable[[Alert], Awaitable[Any] | Any]
"""Told of an alert when it is triggered and when it is over: a function, or an async one. The former runs in a thread."""

_REMEMBERED = 1_000
_WAITING = 10_000
"""Alerts that wait for a callback; of further ones the oldest are left out."""
_decode = msgspec.json.Decoder(Alert).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Alerts:
    """See the module."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._hearings: dict[str, Hearing] = {}

    async def set(
        self,
        condition: SaidCondition,
        callback: AlertCallback | None = None,
        webhook: str | None = None,
        *,
        id: str | None = None,
    ) -> str:
        """From now on be told when `condition` holds; the alert's id.

        `condition`: an `AlertCondition`, or a mapping (`{"metric": "execution_duration", "operator": ">", "threshold": "2h"}`).
        `callback`: called here with each `Alert`, when it is triggered and when it is over, as long as this client is open.
        `webhook`: a URL to which each is posted. `id`: one of the same id takes the place of the one before.
        Raises `ValidationError`, `Refused` (`too_many_alerts`), `NotConfirmed`.
        """
        said, command_id = read_condition(condition), new_id()
        alert_id = command_id if id is None else id
        for problem in (alert_id_problem(alert_id), webhook_problem(webhook) if webhook is not None else None):
            if problem is not None:
                raise to_exception(problem)
        if callback is not None:
            await self.listen(alert_id, callback)
        command = c.SetAlert(id=command_id, condition=said, alert_id=alert_id, webhook=webhook, actor=self._client.owner)
        try:
            await self._client._tell_shared(ALERTS_ENTITY, "set_alert", command)
        except EsexecError:
            if callback is not None:
                await self.unlisten(alert_id)
            raise
        return alert_id

    async def remove(self, alert_id: str) -> bool:
        """It is not watched any more: True if that took effect, False if there was none of this id.

        What is open of it is told to be over. Raises `ValidationError` (`bad_alert_id`), `NotConfirmed`.
        """
        _check_id(alert_id)
        command = c.RemoveAlert(id=new_id(), alert_id=alert_id, actor=self._client.owner)
        return await self._client._tell_shared(ALERTS_ENTITY, "remove_alert", command)

    async def list(self) -> builtins.list[KeptAlert]:
        """The alerts that are set, in the order in which they were set first."""
        return [*(await self._state()).alerts.values()]

    async def history(self, **conditions: Unpack[AlertConditions]) -> AlertsPage:
        """What was triggered, the last first, that meets all conditions; see `ListAlerts`. `state="triggered"`: what is open now.

        Raises ValidationError, and Unavailable where no projections run (`no_projections`) or they are behind (`not_yet`).
        """
        return await self._client.queries.ask("alerts.list", alerts_asked(conditions), AlertsPage)

    async def _state(self) -> AlertsState:
        return fold_alerts(await news_of(self._client._log, ALERTS_ENTITY))

    # Callbacks -----------------------------------------------------------------------------------------------------------

    async def listen(self, alert_id: str, callback: AlertCallback) -> None:
        """Call this for an alert that somebody set, in place of what was called for it here before.

        Raises `ValidationError` (`bad_alert_id`).
        """
        _check_id(alert_id)
        if not callable(callback):
            raise ValidationError(f"{quoted(callback)} is no callback", code="invalid_value", hint="a function, or an async one")
        await self.unlisten(alert_id)
        hearing = self._hearings[alert_id] = Hearing(self._client, alert_id, callback)
        await hearing.begin()

    async def unlisten(self, alert_id: str) -> None:
        """Call nothing for it any more; it is watched all the same."""
        if (hearing := self._hearings.pop(alert_id, None)) is not None:
            await hearing.end(asyncio.current_task())

    async def _close(self, by: "asyncio.Task[Any] | None") -> None:
        while self._hearings:
            _, hearing = self._hearings.popitem()
            await hearing.end(by)


class Hearing:
    """A callback, and what it has been told. One alert after the other; the same never twice."""

    def __init__(self, client: "Client", alert_id: str, callback: AlertCallback) -> None:
        self._client, self._alert_id, self._callback = client, alert_id, callback
        self._news: deque[Alert] = deque(maxlen=_WAITING)
        self._heard: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        self._wake = asyncio.Event()
        self._subscription: Any = None
        self._task: asyncio.Task[None] | None = None
        self._stop_looking: Callable[[], None] = lambda: None

    async def begin(self) -> None:
        connection = self._client._connection
        assert connection is not None
        self._subscription = await connection.subscribe(self._client._subjects.alert(self._alert_id), self._on_message)
        self._stop_looking = connection.on_reconnect(self._look)
        self._task = asyncio.create_task(self._call_all(), name="esexec-alerts")

    async def end(self, by: "asyncio.Task[Any] | None") -> None:
        """`by`: who wants that. A callback may do so itself, and goes on."""
        self._stop_looking()
        if self._task is not None and self._task is not by:
            self._task.cancel()
        connection = self._client._connection
        if connection is not None and not connection.is_closed and self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _on_message(self, message: Msg) -> None:
        self._take(message.data)

    async def _look(self) -> None:
        """After an outage: what was told last was perhaps told to nobody."""
        with suppress(EsexecError):
            for message in await self._client._reader.last_of_each(
                self._client._subjects.events_stream, [self._client._subjects.alert(self._alert_id)]
            ):
                self._take(message.data)

    def _take(self, data: bytes) -> None:
        try:
            alert = _decode(data)
        except _UNREADABLE:
            logger.warning("an alert %s that cannot be read", self._alert_id)
            return
        if (known := (alert.id, alert.state)) not in self._heard:
            self._heard.append(known)
            self._news.append(alert)
            self._wake.set()

    async def _call_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._news:
                alert = self._news.popleft()
                try:
                    await _called(self._callback, alert)
                except Exception:
                    logger.warning("the callback of alert %s failed upon %s", self._alert_id, alert.message, exc_info=True)


async def _called(callback: AlertCallback, alert: Alert) -> None:
    is_async = inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None))  # noqa: B004
    told = callback(alert) if is_async else await asyncio.to_thread(callback, alert)
    if inspect.isawaitable(told):
        await told


def _check_id(alert_id: object) -> None:
    if (problem := alert_id_problem(alert_id)) is not None:
        raise to_exception(problem)

"""Nudges executions that have been silent for long: whatever is open of them is repeated, should it have been lost.

Nothing is lost as far as anybody knows. This is for what nobody knows: a message that an operator deleted, a stream that was
restored. Who waits with good reason (for a start time, a long task, a retry) is nudged ever more seldom, and nothing happens.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from time import monotonic

from eventsourcing.persistence import PersistenceError

from esexec.domain.errors import Unavailable
from projections.executions import EXECUTIONS, rank_at
from projections.runner import Runner
from projections.tables import Where
from projections.view import View

logger = logging.getLogger("esexec.projections")

SILENT_S = 120.0
"""So long nothing has happened."""
_MOST_SELDOM_S = 3600.0
_AT_ONCE = 500
"""So many of each status are looked at in a round, those first that have been silent longest; in the next those that follow."""
_REMEMBERED = 20_000
"""Of so many it is known when they were nudged last; others are nudged whenever their turn comes."""
_OPEN = ("running", "pending")
Nudge = Callable[[str], Awaitable[None]]


class Nudger:
    """`nudge`: sends one to an execution. `silent_s`: after so long, then after twice that, and so on up to an hour."""

    def __init__(self, runner: Runner, nudge: Nudge, silent_s: float = SILENT_S) -> None:
        self._runner, self._nudge, self._silent_s = runner, nudge, silent_s
        self._nudged: OrderedDict[str, tuple[int, float, float]] = OrderedDict()
        """By execution: as of which commit's time, when it may be nudged again, and after how long then."""
        self._places: dict[str, int] = {}
        """By status: where the next round goes on, by `touched`."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._silent_s / 4)
            if self._runner.state != "working":
                continue
            try:
                await self.round()
            except (PersistenceError, Unavailable) as error:
                logger.debug("nobody was nudged: %s", error)

    async def round(self) -> None:
        """Nudge those whose time has come."""
        silent = await asyncio.to_thread(self._silent, self._runner.view)
        now = monotonic()
        for execution, touched in silent.items():
            as_of, due_mono, wait_s = self._nudged.get(execution, (touched, 0.0, self._silent_s))
            if as_of != touched:
                due_mono, wait_s = 0.0, self._silent_s
            if now >= due_mono:
                await self._nudge(execution)
                self._nudged[execution] = touched, now + wait_s, min(2 * wait_s, _MOST_SELDOM_S)
                self._nudged.move_to_end(execution)
        while len(self._nudged) > _REMEMBERED:
            self._nudged.popitem(last=False)

    def _silent(self, view: View) -> dict[str, int]:
        since = rank_at(datetime.now(UTC) - timedelta(seconds=self._silent_s))
        found: dict[str, int] = {}
        for status in _OPEN:
            place = Where("touched", ">", self._places.get(status, -1))
            where = [Where("status", "=", status), place, Where("touched", "<", since)]
            rows = view.select(EXECUTIONS, where, order=["touched"], limit=_AT_ONCE)
            is_last = len(rows) < _AT_ONCE
            self._places[status] = -1 if is_last else rows[-1].touched - 1  # others may have been touched in that very moment
            found |= {row.id: row.touched for row in rows}
        return found

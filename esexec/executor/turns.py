"""Turns: the commands of one execution are decided in the order of the stream, whoever has them in hand.

Executors share a partition, so two commands that follow each other closely can be in the hands of two of them. What came here
stands in a line, by its place in COMMANDS, and its first waits until all commands before it are dealt with, or are on their way
through this executor's mailbox. So a burst of commands asks the server once for each, and not each for all.
"""

import asyncio
from bisect import insort
from collections.abc import Awaitable, Callable
from operator import attrgetter

from esexec.domain.commands import StartExecution
from esexec.executor.envelope import Envelope, backoff_s

FirstCommand = Callable[[str, int], Awaitable[int | None]]
"""The place in COMMANDS of the first command of an execution that stands there, at this place or behind it; None: none does."""

_SHORTEST_WAIT_S, _LONGEST_WAIT_S, _PATIENCE_S = 0.001, 0.2, 8.0
"""How long is waited for the first one's turn before the server is asked again: a quarter of the time that it has taken so far.
So two executors that take turns come into step. In the end the server keeps the whole line for a while."""
_place = attrgetter("sequence")


class Turns:
    """`commands_in_hand`: those that the mailbox of an execution has, and decides in the order they came. `go_on`: what is done
    with a command when it is its turn."""

    def __init__(
        self,
        first_command: FirstCommand,
        commands_in_hand: Callable[[str], list[Envelope]],
        go_on: Callable[[Envelope], Awaitable[None]],
    ) -> None:
        self._first_command, self._commands_in_hand, self._go_on = first_command, commands_in_hand, go_on
        self._lines: dict[str, list[Envelope]] = {}

    def stand_in_line(self, envelope: Envelope) -> list[Envelope] | None:
        """The line, if it is a new one: somebody must `serve` it."""
        envelope.in_line_mono = asyncio.get_running_loop().time()
        line = self._lines.get(envelope.entity)
        if line is not None:
            insort(line, envelope, key=_place)  # one that is delivered again comes behind later ones
            return None
        line = self._lines[envelope.entity] = [envelope]
        return line

    async def serve(self, entity: str, line: list[Envelope]) -> None:
        """Until it is empty. If its first has no turn for long, or the server does not answer, the whole line is given back."""
        try:
            await self._let_in(line)
        finally:
            del self._lines[entity]
            for envelope in line:
                await envelope.nak(backoff_s(envelope.deliveries))

    async def _let_in(self, line: list[Envelope]) -> None:
        moved = asyncio.get_running_loop().time()
        while line:
            first = line[0]
            if await self._is_its_turn(first):
                line.remove(first)
                await self._go_on(first)
                moved = asyncio.get_running_loop().time()
            elif (waited_s := asyncio.get_running_loop().time() - moved) < _PATIENCE_S:
                await asyncio.sleep(min(max(waited_s / 4, _SHORTEST_WAIT_S), _LONGEST_WAIT_S))
            else:
                return

    async def _is_its_turn(self, envelope: Envelope) -> bool:
        """Whether nothing stands in the stream before it but what is in hand, and still is once that is known.

        A command in hand had its turn, so that nothing has to be looked for before it. A start is in hand without one.
        """
        entity, place = envelope.entity, envelope.sequence
        in_turn = (one.sequence for one in self._commands_in_hand(entity) if type(one.content) is not StartExecution)
        last = max((one for one in in_turn if one < place), default=0)
        before = [last] if last else []
        while (last := await self._first_command(entity, last + 1) or place) < place:
            before.append(last)
            if not self._are_in_hand(entity, before):
                return False
        return self._are_in_hand(entity, before)

    def _are_in_hand(self, entity: str, places: list[int]) -> bool:
        return not places or {one.sequence for one in self._commands_in_hand(entity)}.issuperset(places)

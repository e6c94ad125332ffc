"""`client.histories`: whole histories as they are stored. At a moment, compared, as a file, and all of them checked."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from esexec.client.commands import checked_id
from esexec.client.errors import not_found
from esexec.client.large import refs_in, verified
from esexec.client.times import checked_time
from esexec.domain.errors import Conflict, CorruptHistory, NotFound, Unavailable, ValidationError
from esexec.domain.evolve import fold
from esexec.domain.past import as_of
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.lines import histories_in, line_of, line_of_object
from esexec.log.port import Stored, append_and_wait, load_certain
from esexec.log.verify import Verification, verify
from esexec.results import result_of
from projections.difference import Change, difference

if TYPE_CHECKING:
    from esexec.client.client import Client

_AT_ONCE = 16
"""Histories that are checked side by side."""
_STORE_S = 10.0
"""How long a commit of an import may take to be stored."""
_LOOKS = 3
"""What executions share may be compacted while it is read: so often it is read before what is found there is believed."""


class Imported(msgspec.Struct, frozen=True):
    """What came of a history in a file: how many commits it has, and how many of them were not there before."""

    execution_id: str
    commits: int
    written: int


class Histories:
    """`client.histories`, see the module. Nothing here but `import_` writes anything."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    # At a moment -----------------------------------------------------------------------------------------------------------

    async def state(self, execution_id: str, *, version: int | None = None, at: datetime | None = None) -> ExecutionState:
        """The folded state after the event of this version, and as of this time: of what had not begun, it does not exist.

        Raises `NotFound` (`not_found`, `unknown_version`), `ValidationError` (`bad_version`, `naive_time`), `CorruptHistory`.
        """
        if version is not None and version < 1:
            raise ValidationError(f"{version} is no version", code="bad_version", hint="events are numbered from 1")
        at = None if at is None else checked_time("at", at)
        history = await self._client._log.load(checked_id(execution_id))
        if not history:
            raise not_found(execution_id)
        state = fold(execution_id, as_of((codec.commit_of(one) for one in history), version=version, at=at))
        if version is not None and at is None and state.version < version:
            hint = f"esexec history {execution_id} lists them"
            message = f"{execution_id} has come to version {state.version}, not yet to {version}"
            raise NotFound(message, code="unknown_version", hint=hint)
        state.position = history[state.n - 1].position if state.n else 0
        return state

    async def diff(self, execution_id: str, before: int, after: int) -> list[Change]:
        """What is different after the event of version `after`, compared to after that of `before`. Raises as `state`."""
        states = [await self.state(execution_id, version=version) for version in (before, after)]
        return difference(result_of(states[0]), result_of(states[1]))

    # As a file -------------------------------------------------------------------------------------------------------------

    async def export(self, execution_id: str) -> list[bytes]:
        """The history as lines of JSON, byte for byte as it is stored, whole or not, and behind it the objects that it refers to;
        also of what executions share.

        Raises `NotFound`.
        """
        history = await self._client._log.load_raw(checked_id(execution_id, ours=True))
        if not history:
            raise not_found(execution_id)
        lines = [line_of(execution_id, one) for one in history]
        for ref in refs_in(history):  # what was altered or is missing is not in the file, as `verify` says of either
            with suppress(CorruptHistory):
                lines.append(line_of_object(await self._client._log.objects.read(ref)))
        return lines

    async def import_(self, lines: Iterable[bytes]) -> list[Imported]:
        """Store the histories that these lines hold in this namespace. Nothing is written unless all of them are whole and
        lawful, and none contradicts what is there. The same again writes nothing; what was interrupted is gone on with.

        An imported execution is looked at, not carried on: nobody is told of it, and what runs elsewhere is not here. Raises
        `ValidationError` (`bad_history_file`, `shared_history`), `CorruptHistory`, `Conflict` if an execution has another history
        here, `Unavailable` if this client may not write to the log.
        """
        found, objects = histories_in(lines)
        if not found:
            raise ValidationError("there is no history in it", code="bad_history_file", hint="was the file written to its end?")
        for execution_id, history in found.items():
            _check(execution_id, history)
            missing = next((ref for ref in refs_in(history) if ref.sha256 not in objects), None)
            if missing is not None:
                message = f"{execution_id}: the object {missing.sha256} is not in the file"
                raise CorruptHistory(
                    message, code="object_missing", hint="nothing was imported; was the file written to its end?"
                )
        there = {execution_id: await self._there(execution_id, history) for execution_id, history in found.items()}
        for data in objects.values():
            await self._client._log.objects.put(data)
        return [await self._store(execution_id, history, there[execution_id]) for execution_id, history in found.items()]

    async def _there(self, execution_id: str, history: list[Stored]) -> list[Stored]:
        """What is stored of it here already. Raises `Conflict` if that is not the same."""
        there = await load_certain(self._client._log, execution_id)
        for ours, theirs in zip(there, history, strict=False):
            if ours.data != theirs.data:
                raise _conflict(execution_id, ours.n)
        return there

    async def _store(self, execution_id: str, history: list[Stored], there: list[Stored]) -> Imported:
        log, position = self._client._log, there[-1].position if there else 0
        for one in history[len(there) :]:
            try:
                async with asyncio.timeout(_STORE_S):
                    stored = await append_and_wait(log, execution_id, one.n, one.data, position)
            except TimeoutError:
                hint = "may this user write to the log? Clients may not where accounts separate them from executors"
                raise Unavailable(f"commit {one.n} of {execution_id} was not stored", code="not_stored", hint=hint) from None
            if stored is None:
                raise _conflict(execution_id, one.n)
            position = stored
        return Imported(execution_id, len(history), max(0, len(history) - len(there)))

    # All of them -----------------------------------------------------------------------------------------------------------

    async def size(self) -> int:
        """How many commits the namespace has, in all histories together."""
        return await self._client._log.size()

    async def verify_all(self, *, shared: bool = True, at_once: int = _AT_ONCE) -> AsyncGenerator[Verification]:
        """The finding for every history of the namespace, in no particular order; so many are read at once, and none is kept.

        `shared`: also what executions share. What begins or is compacted meanwhile may be left out.
        """
        under_way: set[asyncio.Task[Verification | None]] = set()
        try:
            async for entity in self._client._log.entities():
                if shared or not entity.startswith("_"):
                    under_way.add(asyncio.create_task(self._verified(entity)))
                while len(under_way) >= at_once:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for one in done:
                        if (found := one.result()) is not None:
                            yield found
            for one in list(under_way):
                if (found := await one) is not None:
                    yield found
        finally:
            for one in under_way:
                one.cancel()

    async def _verified(self, entity: str) -> Verification | None:
        """None: it is gone. Only what executions share ever is, or loses its beginning, while it is read."""
        found = None
        for _ in range(_LOOKS):
            history = await self._client._log.load_raw(entity)
            found = await verified(self._client._log.objects, entity, history) if history else None
            if found is not None and (found.ok or not entity.startswith("_")):
                return found
        return found


def not_yet(execution_id: str, at: datetime) -> NotFound:
    """What to raise for an execution that had not begun."""
    hint = f"esexec history {execution_id} tells when it did"
    return NotFound(f"{execution_id} had not begun at {at:%Y-%m-%dT%H:%M:%SZ}", code="not_yet", hint=hint)


def _check(execution_id: str, history: list[Stored]) -> None:
    if execution_id.startswith("_"):
        hint = "it would govern the executions of this namespace"
        raise ValidationError(f"{execution_id} is what executions share", code="shared_history", hint=hint)
    found = verify(checked_id(execution_id), history)
    if not found.ok:
        raise CorruptHistory(f"{execution_id}: commit {found.commit}: {found.problem}", hint="nothing was imported")


def _conflict(execution_id: str, n: int) -> Conflict:
    message = f"execution {execution_id} has another commit {n} here"
    return Conflict(message, hint="import it into a namespace of its own: --namespace scratch")

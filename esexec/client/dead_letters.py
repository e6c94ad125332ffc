"""`client.dead_letters`: what could not be decided, with the reason; and putting it back once the cause is gone.

A letter says where it came from, and is not believed: it is put back into COMMANDS or INBOX of this namespace, or not at all.
What is put back is what it was, byte for byte, so a command keeps its id and is never carried out twice.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from esexec.client.commands import checked_id
from esexec.client.errors import not_open
from esexec.client.sending import not_stored
from esexec.domain import limits
from esexec.domain.errors import ErrorInfo, EsexecError, NotConfirmed, NotFound, Refused, ValidationError
from esexec.domain.ids import is_token
from esexec.domain.messages import Answer
from esexec.nats import dead
from esexec.nats.connection import Connection
from esexec.nats.direct import Message, last_in, stored_at
from esexec.nats.streams import delete_message

if TYPE_CHECKING:
    from esexec.client.client import Client

Outcome = Literal["accepted", "duplicate", "superseded", "refused", "done", "buried", "waiting", "left"]
"""What became of a letter that was put back: its command's answer; `done`: it was dealt with, and nobody is told how (a report, a
timer, a command that wants no answer); `buried`: it is among the dead again; `waiting`: nobody has dealt with it yet, but it is
stored; `left`: it could not be put back."""

_MOST = 1_000
_AT_ONCE = 100
_LOOK_S, _LOOK_MOST_S = 0.02, 0.25
_ANSWER_S = 0.25
"""An answer is sent before its command is let go, but may be heard behind that."""
_MEND = "whoever sent it must mend it; put back as it is it is buried again"
_HINTS = {
    "unknown_attempt": "nothing waits for it; put back it helps only if its history has come back since",
    "corrupt_history": "esexec verify tells where the history breaks; put it back once that is mended",
    "poison": "a fault of esexec: please report it; put it back with a version that is mended",
    "too_large": "as it would be stored it is too large; whoever sent it must send less",
    "subject_invalid": "whoever sent it must mend the subject; it cannot be put back",
}


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be decided. `id`: its place among the dead. `reason`: a code, `message`: in words. `execution_id`
    and `verb`: of whom and what, `invalid` where the subject said neither. `subject`: where it had been published. `data`: as it
    came; where there was more of it than fits, `whole_bytes` says how much."""

    id: int
    time: datetime
    reason: str
    message: str
    execution_id: str
    verb: str
    subject: str
    data: bytes
    headers: dict[str, str] = {}
    whole_bytes: int | None = None

    @property
    def content(self) -> Any:
        """The body as JSON. Raises `ValidationError` (`undecodable`) if it is none."""
        try:
            return _decode(self.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValidationError(f"letter {self.id} is no JSON: {str(error)[:200]}", code="undecodable") from None

    @property
    def command_id(self) -> str | None:
        """The id of the command, if it can be read."""
        try:
            found = self.content
        except ValidationError:
            return None
        said = found.get("id") if isinstance(found, dict) else None
        return said if isinstance(said, str) and is_token(said) else None

    @property
    def hint(self) -> str:
        """What can be done about it."""
        return _HINTS.get(self.reason, _MEND)


class DeadLettersPage(msgspec.Struct, frozen=True):
    """Dead letters, the oldest first. `cursor`: for what follows; None if nothing does."""

    items: list[DeadLetter]
    cursor: str | None = None

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Redriven(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What became of a letter. `error`: why it was refused, buried or left. `buried_as`: the letter that it is now. `deleted`:
    the old one is gone."""

    id: int
    execution_id: str
    verb: str
    outcome: Outcome
    error: ErrorInfo | None = None
    buried_as: int | None = None
    deleted: bool = False


Redrivens = list[Redriven]


class DeadLetters:
    """See the module."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    @property
    def _connection(self) -> Connection:
        connection = self._client._connection
        if connection is None:
            raise not_open()
        return connection

    # Looking -----------------------------------------------------------------------------------------------------------------

    async def list(
        self, *, reason: str | None = None, execution_id: str | None = None, limit: int = 20, cursor: str | None = None
    ) -> DeadLettersPage:
        """Dead letters, the oldest first: those with this `reason`, of this execution (or of what executions share). `limit`: 1
        to 1,000; a page may hold fewer, and go on with `cursor=page.cursor`, where letters are large.

        Raises `ValidationError` (`bad_execution_id`, `bad_cursor`, `bad_limit`), `Unavailable`.
        """
        if not 1 <= limit <= _MOST:
            raise ValidationError(f"{limit} letters cannot be listed", code="bad_limit", hint=f"1 to {_MOST}")
        found: list[DeadLetter] = []
        size = 0
        async for letter in self._all(reason, execution_id, _from(cursor)):
            if len(found) == limit or (found and size + len(letter.data) > limits.dead_letters_bytes):
                return DeadLettersPage(found, str(letter.id))
            found.append(letter)
            size += len(letter.data)
        return DeadLettersPage(found)

    async def get(self, letter_id: int) -> DeadLetter:
        """One of them. Raises `NotFound` (`unknown_letter`), `Unavailable`."""
        found = await stored_at(self._connection, self._client._subjects.dead_stream, letter_id) if letter_id > 0 else None
        if found is None:
            raise NotFound(f"there is no dead letter {letter_id}", code="unknown_letter", hint="esexec dlq ls")
        return self._letter(*found)

    async def _all(self, reason: str | None, execution_id: str | None, first: int) -> AsyncIterator[DeadLetter]:
        """Page after page, for there may be more than one wants in memory."""
        subjects, reader = self._client._subjects, self._client._reader
        whose = "*" if execution_id is None else checked_id(execution_id, ours=True)
        pattern, page_bytes = subjects.dead(whose, "*"), limits.dead_letters_bytes // 2
        while page := await reader.from_first(subjects.dead_stream, pattern, _MOST, first=first, most_bytes=page_bytes):
            for message in page:
                letter = self._letter(message, _time(message.headers.get("Nats-Time-Stamp")))
                if reason is None or letter.reason == reason:
                    yield letter
            first = page[-1].sequence + 1

    def _letter(self, message: Message, stored: datetime) -> DeadLetter:
        said = {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}
        execution_id, verb = self._client._subjects.parse_dead(message.subject)
        cut = said.get(dead.CUT, "")
        return DeadLetter(
            id=message.sequence,
            time=stored,
            reason=said.get(dead.REASON, "unknown"),
            message=said.get(dead.MESSAGE, ""),
            execution_id=execution_id,
            verb=verb,
            subject=said.get(dead.SUBJECT, ""),
            data=message.data,
            headers=said,
            whole_bytes=int(cut) if cut.isascii() and cut.isdecimal() and len(cut) < 19 else None,
        )

    # Putting back ------------------------------------------------------------------------------------------------------------

    async def redrive(self, letter_id: int, *, delete: bool = False) -> Redriven:
        """Put a letter back to where it came from, as what it was, and tell what became of it. `delete`: the letter is deleted
        once the server has stored it there (for which one needs the right).

        Raises `NotFound` (`unknown_letter`), `Refused` (`not_redrivable`), `Overloaded`, `NotConfirmed` (`not_stored`),
        `Unavailable`.
        """
        letter = await self.get(letter_id)
        if (error := self._not_redrivable(letter)) is not None:
            raise error
        return (await self._put_back([letter], delete))[0]

    async def redrive_all(
        self, *, reason: str | None = None, execution_id: str | None = None, delete: bool = False
    ) -> AsyncIterator[Redriven]:
        """The same with all that there are now, with this `reason`, of this execution, in their order. What cannot be put back is
        `left`. Raises as `redrive`."""
        last = await last_in(self._connection, self._client._subjects.dead_stream)
        waiting: list[DeadLetter] = []
        async for letter in self._all(reason, execution_id, 1):
            if letter.id > last:
                break
            if (error := self._not_redrivable(letter)) is not None:
                yield _became(letter, "left", error.info)
                continue
            waiting.append(letter)
            if len(waiting) == _AT_ONCE:
                for one in await self._put_back(waiting, delete):
                    yield one
                waiting = []
        for one in await self._put_back(waiting, delete):
            yield one

    async def delete(self, letter_id: int) -> None:
        """Delete a letter, for good. Raises `NotFound` (`unknown_letter`), `Unavailable` (also without the right to it)."""
        await self.get(letter_id)
        await delete_message(self._connection, self._client._subjects.dead_stream, letter_id)

    def _not_redrivable(self, letter: DeadLetter) -> Refused | None:
        if letter.whole_bytes is not None:
            message, hint = f"letter {letter.id} is only the beginning of what it was", "whoever sent it must send less"
        elif not dead.is_intake(letter.subject, self._client.namespace):
            message, hint = f"letter {letter.id} does not come from the intake of this namespace", letter.hint
        else:
            return None
        return Refused(message, code="not_redrivable", hint=hint)

    async def _put_back(self, letters: Any, delete: bool) -> Redrivens:
        """In their order; then what became of each, all at once, and not for ever."""
        connection, subjects = self._connection, self._client._subjects
        last = await last_in(connection, subjects.dead_stream) if letters else 0
        async with AsyncExitStack() as stack:
            heard: dict[int, asyncio.Future[Answer]] = {}
            for letter in letters:
                if (command_id := letter.command_id) is not None and ".cmd." in letter.subject:
                    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
                    heard[letter.id] = answer
                    hear = _first(answer)
                    await stack.enter_async_context(self._client._answers_to(letter.execution_id, command_id, hear))
            places = [await self._store(letter) for letter in letters]
            until = asyncio.get_running_loop().time() + self._client._confirm_s
            became = await asyncio.gather(
                *(
                    self._became(letter, place, heard.get(letter.id), last, until)
                    for letter, place in zip(letters, places, strict=True)
                )
            )
        if not delete:
            return became
        for letter in letters:
            await delete_message(connection, subjects.dead_stream, letter.id)
        return [msgspec.structs.replace(one, deleted=True) for one in became]

    async def _store(self, letter: DeadLetter) -> int:
        """Its place in the stream where it is again."""
        try:
            async with asyncio.timeout(self._client._confirm_s):
                ack = await self._client._publisher.store(letter.subject, letter.data)
        except TimeoutError:
            message = f"the server has not acknowledged letter {letter.id} within {self._client._confirm_s:g} s"
            raise NotConfirmed(
                message, code="not_stored", hint="it may be put back again: nothing is carried out twice"
            ) from None
        if ack.error is not None:
            raise not_stored(ack.error)
        return ack.seq

    async def _became(
        self, letter: DeadLetter, place: int, answer: "asyncio.Future[Answer] | None", last: int, until: float
    ) -> Redriven:
        subjects, loop = self._client._subjects, asyncio.get_running_loop()
        stream = subjects.commands_stream if ".cmd." in letter.subject else subjects.inbox_stream
        pause_s = _LOOK_S
        while await stored_at(self._connection, stream, place) is not None:
            if loop.time() >= until:
                return _became(letter, "waiting")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LOOK_MOST_S)
        if (again := await self._buried_again(letter, last)) is not None:
            error = ErrorInfo(type="internal_error", code=again.reason, message=again.message, hint=again.hint)
            return _became(letter, "buried", error, again.id)
        if answer is None:
            return _became(letter, "done")
        await asyncio.wait({answer}, timeout=_ANSWER_S)
        return _became(letter, answer.result().status, answer.result().error) if answer.done() else _became(letter, "done")

    async def _buried_again(self, letter: DeadLetter, last: int) -> DeadLetter | None:
        subjects = self._client._subjects
        pattern = subjects.dead(letter.execution_id, letter.verb)
        for message in await self._client._reader.from_first(subjects.dead_stream, pattern, _MOST, first=last + 1):
            if message.data == letter.data and message.headers.get(dead.SUBJECT) == letter.subject:
                return self._letter(message, _time(message.headers.get("Nats-Time-Stamp")))
        return None


_decode = msgspec.json.Decoder().decode


def _first(answer: "asyncio.Future[Answer]") -> Any:
    def hear(said: Answer) -> None:
        if not answer.done():
            answer.set_result(said)

    return hear


def _became(letter: DeadLetter, outcome: Outcome, error: ErrorInfo | None = None, buried_as: int | None = None) -> Redriven:
    return Redriven(
        id=letter.id,
        execution_id=letter.execution_id,
        verb=letter.verb,
        outcome=outcome,
        error=error,
        buried_as=buried_as,
    )


def _from(cursor: str | None) -> int:
    if cursor is None:
        return 1
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise ValidationError(f"{cursor[:40]!r} is no cursor", code="bad_cursor", hint="as the page before has it")
    return max(1, int(cursor))


def _time(said: str | None) -> datetime:
    """When the server stored it, as it says beside a direct get."""
    try:
        return msgspec.convert(said, datetime).astimezone(UTC)
    except (msgspec.ValidationError, EsexecError):
        return datetime.fromtimestamp(0, UTC)

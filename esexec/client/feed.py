"""Following executions live: commits as the server repeats them, folded; answers to commands; and a look now and then.

The messages are at-most-once: a gap in `n` is filled by a read of the log, and whoever waits looks again every two seconds. So is
what does not continue the chain of hashes: anybody may have published it.
A few executions are followed by a subscription each; beyond that one subscription to all is cheaper, as long as most of
what it brings is ours. No consumer is made on the server in any case.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from esexec.client.errors import closed
from esexec.domain.announced import warnings_of
from esexec.domain.commit import Commit, hash_of
from esexec.domain.errors import EsexecError
from esexec.domain.evolve import fold
from esexec.domain.messages import Answer
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.port import Log
from esexec.nats.connection import Connection, Msg
from esexec.nats.lean import Message
from esexec.nats.subjects import Subjects

logger = logging.getLogger("esexec.client")

_LOOK_AGAIN_S = 2.0
_NARROW = 16
"""So many executions are followed one by one; more by one subscription to all."""
_STRANGERS = 8
"""Back to one by one when so many times more messages come for others than for us (judged every `_LOOK_AGAIN_S`)."""

_answer = msgspec.json.Decoder(Answer).decode
Heard = Callable[[Commit], None]


class Asked:
    """Who waits for what becomes of a command. `future`: its answer; None: carried out (or, `until_end`, ended); `SILENCE`:
    nobody has said anything for too long (looked at twice a second). `until_done`: not before all has happened that follows
    from it, which only the answer tells. `stored`: the server has acknowledged it."""

    __slots__ = ("deadline_mono", "future", "heard", "stored", "until_done", "until_end")

    def __init__(self, deadline_mono: float, until_end: bool, until_done: bool) -> None:
        self.deadline_mono, self.until_end, self.until_done = deadline_mono, until_end, until_done
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.heard = self.stored = False

    def carried_out(self) -> None:
        if self.until_done:
            return
        self.heard = True
        if not self.until_end and not self.future.done():
            self.future.set_result(None)

    def answered(self, answer: Answer) -> None:
        self.heard = True
        if not self.future.done() and (answer.status != "accepted" or not self.until_end):
            self.future.set_result(answer)

    def refused(self, error: EsexecError) -> None:
        self.heard = True
        if not self.future.done():
            self.future.set_exception(error)


SILENCE = object()


class Watch:
    """One execution as it is followed: its folded state, and who waits for what. Closed by its last user."""

    __slots__ = ("asked", "at_close", "changed", "feed", "filling", "heard", "heard_mono", "last", "state", "subscriptions",
                 "told", "users")  # fmt: skip

    def __init__(self, feed: "Feed", execution_id: str) -> None:
        self.feed = feed
        self.state = ExecutionState(execution_id)
        self.last = b""
        """The bytes of the last commit that was folded."""
        self.told = 0
        """The number of the last commit that was told."""
        self.users = 0
        self.subscriptions: list[Any] = []
        self.heard_mono = feed.now_mono
        self.filling = False
        self.asked: dict[str, Asked] = {}
        """Who waits to hear what became of a command."""
        self.changed: list[asyncio.Future[Any]] = []
        self.heard: list[Heard] = []
        self.at_close: list[Callable[[], None]] = []
        """Told when nothing will be heard any more."""

    def ask(self, command_id: str, patience_s: float, *, until_end: bool = False, until_done: bool = False) -> "Asked":
        """Wait for what becomes of a command. `until_end`: a commit that carries it out is no news, only the end is.

        Raises `Unavailable` (`closed`), as `ended`.
        """
        self.feed.check()
        asked = self.asked[command_id] = Asked(self.feed.now_mono + patience_s, until_end, until_done)
        if until_end:
            self.changed.append(asked.future)
        self.feed.silences.append(asked)
        return asked

    async def ended(self) -> None:
        """Returns when the execution has ended."""
        while not self.state.ended:
            self.feed.check()
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.changed.append(future)
            await future

    def hear(self, commit: Commit, data: bytes) -> None:
        """The next commit, if it is that; others are left to a read of the log."""
        state = self.state
        if state.execution_id[0] == "_":  # what executions share has no such state: only who asked wants to know
            self._carried_out(commit)
        elif commit.n == state.n + 1:
            if self.follows(commit):
                self.take(commit, data)
            else:
                self.feed.fill(self)
        elif commit.n > state.n:
            self.feed.fill(self)
        elif commit.n == state.n and data != self.last:  # one of the two was never stored
            self.forget()
            self.feed.fill(self)

    def follows(self, commit: Commit) -> bool:
        """Whether it continues the history, as far as that was heard."""
        is_ours = commit.execution_id == self.state.execution_id
        return is_ours and commit.prev == (hash_of(self.last) if self.last else "")

    def forget(self) -> None:
        """What was heard is not the history. What was told cannot be taken back."""
        self.state, self.last = ExecutionState(self.state.execution_id), b""

    def take(self, commit: Commit, data: bytes) -> None:
        """The next commit."""
        state = self.state
        try:
            fold(state.execution_id, (commit,), state)
        except Exception:
            self.forget()  # it may be half folded
            raise
        self.last, self.heard_mono = data, self.feed.now_mono
        if self.asked:
            if commit.n == 1 and state.created.unannounced and any(asked.until_end for asked in self.asked.values()):
                _warn(state)
            self._carried_out(commit)
        if commit.n > self.told:
            self.told = commit.n
            for heard in self.heard:
                heard(commit)
        if state.ended:
            for future in self.changed:
                if not future.done():
                    future.set_result(None)
            self.changed.clear()

    def _carried_out(self, commit: Commit) -> None:
        for cause in commit.commands:
            if (asked := self.asked.get(cause.id)) is not None:
                asked.carried_out()

    def answered(self, answer: Answer) -> None:
        if (asked := self.asked.get(answer.command_id)) is not None:
            asked.answered(answer)


def _warn(state: ExecutionState) -> None:
    """Whoever waits for it may wait for long, and would wonder."""
    for one in warnings_of(state.created.unannounced):
        logger.warning("execution %s: %s", state.execution_id, one.message)


class Feed:
    """See the module."""

    def __init__(self, connection: Connection, subjects: Subjects, log: Log) -> None:
        self._connection, self._subjects, self._log = connection, subjects, log
        self._watches: dict[str, Watch] = {}
        self._wide: list[Any] = []
        self._ours = self._others = 0
        self._narrow_until = 0.0
        self.silences: deque[Asked] = deque()
        """Commands in the order they were given, to notice those that nobody answers."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._is_closed = False
        self.now_mono = time.monotonic()

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ticker = asyncio.create_task(self._tick(), name="esexec-feed")
        self._connection.on_reconnect(self._look_at_all)

    async def close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        for task in list(self._tasks):
            task.cancel()
        self._wide, self._is_closed = [], True
        for watch in self._watches.values():
            for told in watch.at_close:
                told()
            for future in (*(asked.future for asked in watch.asked.values()), *watch.changed):
                if not future.done():
                    future.set_exception(closed())
                    future.exception()  # nobody may be waiting

    def check(self) -> None:
        """Raises `Unavailable` (`closed`) where nothing will be heard any more."""
        if self._is_closed:
            raise closed()

    async def open(self, execution_id: str) -> Watch:
        """Follow an execution from now on; every `open` is matched by a `release`."""
        watch = self._watches.get(execution_id)
        if watch is not None:
            watch.users += 1
            return watch
        watch = self._watches[execution_id] = Watch(self, execution_id)
        watch.users = 1  # before anything is waited for: another user may come and go meanwhile
        try:
            if not self._wide:
                if len(self._watches) > _NARROW and self.now_mono >= self._narrow_until:
                    await self._widen()
                else:
                    await self._subscribe(watch)
        except BaseException:
            await self.release(watch)
            raise
        return watch

    async def release(self, watch: Watch) -> None:
        """This user is done with it."""
        watch.users -= 1
        if watch.users:
            return
        if self._watches.get(watch.state.execution_id) is watch:
            del self._watches[watch.state.execution_id]
        subscriptions, watch.subscriptions = watch.subscriptions, []
        for subscription in subscriptions:
            if not self._connection.is_closed:
                await subscription.unsubscribe()

    async def catch_up(self, watch: Watch) -> ExecutionState:
        """Read what the log holds beyond what was heard. Raises `Unavailable`, `CorruptHistory`."""
        entity = watch.state.execution_id
        news = await self._log.load(entity, after=watch.state.n)
        if watch.last and news and news[0].n == watch.state.n + 1 and not watch.follows(codec.decode(news[0].data)):
            watch.forget()
            news = await self._log.load(entity)
        for stored in news:
            if stored.n == watch.state.n + 1:
                watch.take(codec.commit_of(stored), stored.data)
                watch.state.position = stored.position
        watch.heard_mono = time.monotonic()
        return watch.state

    def fill(self, watch: Watch) -> None:
        """Something was missed: read it, in the background."""
        if not watch.filling:
            watch.filling = True
            task = asyncio.create_task(self._fill(watch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fill(self, watch: Watch) -> None:
        try:
            await self.catch_up(watch)
        except EsexecError as error:
            logger.debug("%s: %s", watch.state.execution_id, error)
        finally:
            watch.filling = False

    # Subscriptions -------------------------------------------------------------------------------------------------------

    async def _subscribe(self, watch: Watch) -> None:
        execution_id = watch.state.execution_id
        watch.subscriptions = [
            await self._connection.listen(self._subjects.commits_of(execution_id), self._on_commit),
            await self._connection.listen(self._subjects.reply(execution_id, "*"), self._on_answer),
        ]

    async def _widen(self) -> None:
        self._ours = self._others = 0
        self._wide = [
            await self._connection.listen(self._subjects.commits_all, self._on_commit),
            await self._connection.listen(self._subjects.reply("*", "*"), self._on_answer),
        ]
        for watch in self._watches.values():
            subscriptions, watch.subscriptions = watch.subscriptions, []
            for subscription in subscriptions:
                await subscription.unsubscribe()

    async def _narrow(self) -> None:
        for watch in list(self._watches.values()):
            if not watch.subscriptions:
                await self._subscribe(watch)
        wide, self._wide = self._wide, []
        for subscription in wide:
            await subscription.unsubscribe()
        await self._look_at_all()

    async def _on_commit(self, message: Message) -> None:
        watch = self._watches.get(message.subject.split(".")[3])
        if watch is None:
            self._others += 1
            return
        self._ours += 1
        try:
            commit = codec.decode(message.data)
            if commit.n == 1 and codec.lacking(commit) is not None:
                self.fill(watch)  # with its plan
                return
            watch.hear(commit, message.data)
        except EsexecError as error:
            logger.error("%s", error)
        if watch.state.ended:
            # Only the last commit's position is told to anybody; reading it from the headers of each would cost.
            watch.state.position = message.number(b"Nats-Sequence") or watch.state.position

    async def _on_answer(self, message: Msg) -> None:
        watch = self._watches.get(message.subject.split(".")[3])
        if watch is not None:
            try:
                watch.answered(_answer(message.data))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                logger.warning("an answer that cannot be read on %s", message.subject)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S / 4)
            self.now_mono = time.monotonic()
            self._notice_silence()
            if not self._connection.is_connected:
                continue
            if self._wide and (len(self._watches) <= _NARROW // 2 or self._others > _STRANGERS * max(self._ours, 100)):
                if self._others > self._ours:
                    self._narrow_until = self.now_mono + 10 * _LOOK_AGAIN_S
                await self._narrow()
            self._ours = self._others = 0
            for watch in list(self._watches.values()):
                if self.now_mono - watch.heard_mono > _LOOK_AGAIN_S:
                    watch.heard_mono = self.now_mono
                    self.fill(watch)

    def _notice_silence(self) -> None:
        while self.silences and (self.silences[0].future.done() or self.silences[0].deadline_mono <= self.now_mono):
            asked = self.silences.popleft()
            if not asked.heard and not asked.future.done():
                asked.future.set_result(SILENCE)

    async def _look_at_all(self) -> None:
        """After a reconnect: whatever was said meanwhile was said to nobody."""
        for watch in list(self._watches.values()):
            self.fill(watch)

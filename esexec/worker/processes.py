"""Processes for handlers that work hard (`run_in="process"`): started when needed, used again, and killed when they must end.

A process is lent to one attempt at a time. One that is killed, or ends by itself, costs that attempt and nothing else: the next
one gets another.
"""

import asyncio
import itertools
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from esexec.domain.errors import ErrorInfo, ProcessCrashed, ValidationError
from esexec.domain.measures import Measured
from esexec.tasks import Task
from esexec.worker import frames as f
from esexec.worker.attempt import Attempt

logger = logging.getLogger("esexec.worker")

Tell = Callable[[str, str, bytes], None]
"""Takes what a handler tells live: execution, kind, data."""
KeepImage = Callable[[Attempt, bytes], Awaitable[Any]]

_BEGIN_S = 60.0
"""How long a process may take to import the task's module and to begin."""
_GO_S = 1.0
_numbers = itertools.count(1)
_START = (
    "import json, sys; worker, sys.path[:] = json.loads(sys.argv[1]); sys.argv[1:] = []; "
    "from esexec.worker.child import main; main(worker)"
)


class HandlerProcess:
    """One process, and the pipe to it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._number = 0
        self.killed = False
        self.measured: Measured | None = None
        """What the handler had measured when it was told to stop."""

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and not self.killed

    async def begin(self, place: f.Place, attempt: Attempt, worker: str) -> f.Began | f.CannotBegin:
        """Have the attempt begun. Raises ProcessCrashed; kills the process if that takes too long, or is given up."""
        self._number, self.measured = next(_numbers), None
        self._send(f.Job(self._number, place, attempt.dispatch, worker))
        try:
            async with asyncio.timeout(_BEGIN_S):
                news = await self._beginning()
        except TimeoutError:
            self.kill()
            raise ProcessCrashed(f"the process did not begin within {_BEGIN_S:g} s", code="process_not_ready") from None
        except BaseException:
            self.kill()
            raise
        if news is None:
            raise await self._crashed()
        return news

    async def _beginning(self) -> f.Began | f.CannotBegin | None:
        """Past what a thread that the handler before left behind still tells."""
        while (news := await self._next()) is not None and not isinstance(news, f.Began | f.CannotBegin):
            pass
        return news

    async def follow(self, attempt: Attempt, tell: Tell, keep: KeepImage) -> f.Ended | f.EndedAsTold:
        """Hear of the handler until it ends. Raises ProcessCrashed."""
        asked: set[asyncio.Task[None]] = set()
        try:
            while (news := await self._next()) is not None:
                match news:
                    case f.Ended() | f.EndedAsTold():
                        return news
                    case f.Live():
                        tell(attempt.dispatch.execution_id, news.kind, bytes(news.data))
                    case f.HasMeasured():
                        self.measured = news.measured
                    case f.KeepImage(number) if number != self._number:  # of a handler that is over: nobody waits for it
                        self._send(f.ImageStands(number, stopped=True))
                    case f.KeepImage():
                        asked.add(asyncio.create_task(self._keep(attempt, news, keep)))
            raise await self._crashed()
        except BaseException:
            self.kill()
            raise
        finally:
            for one in asked:
                one.cancel()

    async def _keep(self, attempt: Attempt, asked: f.KeepImage, keep: KeepImage) -> None:
        try:
            image = await keep(attempt, bytes(asked.image))
        except BaseException:
            self._send(f.ImageStands(asked.number, stopped=True))
        else:
            self._send(f.ImageStands(asked.number, image))

    def tell_to_stop(self) -> None:
        self._send(f.Stop(self._number))

    def kill(self) -> None:
        """End it now, and whatever its handler has started."""
        self.killed = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Let an idle process go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_GO_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def _send(self, message: f.ToProcess) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(f.framed(message))

    async def _next(self) -> f.FromProcess | None:
        """What it says; None once it is gone."""
        reading = self._process.stdout
        assert reading is not None
        try:
            size = f.SIZE.unpack(await reading.readexactly(f.SIZE.size))[0]
            data = await reading.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return f.read_news(data)

    async def _crashed(self) -> ProcessCrashed:
        code = await self._process.wait()
        if code >= 0:
            return ProcessCrashed(f"the process of the handler ended with exit code {code}", retry=True, exit_code=code)
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = "perhaps the machine has run out of memory" if code == -signal.SIGKILL else None
        return ProcessCrashed(f"the process of the handler was ended by {name}", retry=True, hint=hint, signal=name)


class Processes:
    """The processes of a worker, at most `size` at a time. Nothing is started before it is needed."""

    def __init__(self, size: int) -> None:
        self._idle: list[HandlerProcess] = []
        self._all: set[HandlerProcess] = set()
        self._room = asyncio.Semaphore(size)
        self._places: dict[str, f.Place] = {}

    async def begin(self, task: Task[..., Any], attempt: Attempt, worker: str) -> tuple[HandlerProcess, f.Began | f.CannotBegin]:
        """A process in which the attempt has begun, or cannot; it is to be given back. Waits until there is room for one more."""
        place = self._places.get(task.name) or self._places.setdefault(task.name, place_of(task))
        await self._room.acquire()
        process = None
        try:
            while self._idle:  # one that has died since it was used is none of this attempt's fault
                process = self._idle.pop()
                try:
                    return process, await process.begin(place, attempt, worker)
                except ProcessCrashed:
                    self._all.discard(process)
            process = await self._start()
            return process, await process.begin(place, attempt, worker)
        except BaseException:
            if process is not None:
                self._all.discard(process)
            self._room.release()
            raise

    def give_back(self, process: HandlerProcess) -> None:
        """The attempt is over."""
        if process.alive:
            self._idle.append(process)
        else:
            self._all.discard(process)
        self._room.release()

    async def close(self) -> None:
        """Let all go; those at work are killed."""
        idle, self._idle = self._idle, []
        for process in self._all.difference(idle):
            process.kill()
        self._all.clear()
        await asyncio.gather(*(process.end() for process in idle))

    async def _start(self) -> HandlerProcess:
        said = json.dumps([os.getpid(), sys.path])
        made = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _START, said, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        logger.debug("started process %d for handlers", made.pid)
        process = HandlerProcess(made)
        self._all.add(process)
        return process


def place_of(task: Task[..., Any]) -> f.Place:
    """Where a process of its own finds the task. Raises ValidationError (`invalid_task`) if nowhere."""
    for name in dict.fromkeys((getattr(task.fn, "__module__", None), getattr(task, "__module__", None))):
        module = sys.modules.get(name or "")
        if module is None:
            continue
        file = getattr(module, "__file__", None)
        stands = next((known for known, value in vars(module).items() if value is task), None)
        if stands is None:
            continue
        if name == "__main__" and (spec := getattr(module, "__spec__", None)) is not None:  # begun by `python -m`
            return f.Place(spec.name, stands, file)
        if name != "__main__" or file is not None:
            return f.Place(name or "", stands, file)
    raise ValidationError(
        f"task `{task.name}` cannot run in a process of its own: it does not stand in a module under a name",
        code="invalid_task",
        hint="define it at the top of a module; a process imports that once more, and finds the task by its name",
    )


def crash_of(error: ProcessCrashed, attempt: Attempt) -> ErrorInfo:
    return msgspec.structs.replace(error.info, task_id=attempt.dispatch.step, attempt=attempt.dispatch.attempt)

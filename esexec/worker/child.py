"""A process that carries out handlers for a worker, one after the other (`run_in="process"`). Started by `worker.processes`.

The main thread runs the handler; a thread of its own listens to the worker, so that a handler hears that it is to stop. When the
worker is gone the process ends, whatever it is at.
"""

import asyncio
import contextlib
import ctypes
import importlib
import os
import queue
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from esexec.domain.errors import ErrorInfo, ExecutionError, ValidationError
from esexec.domain.messages import Dispatch
from esexec.failures import describe
from esexec.tasks import AttemptCancelled, Context, Task
from esexec.tasks.context import make_current
from esexec.tasks.places import at_place
from esexec.worker import frames as f
from esexec.worker.reporting import completed, failed
from esexec.world import now

_PR_SET_PDEATHSIG = 1
_LISTEN_S = 0.1


class Line:
    """The pipes to the worker. What is written is whole, from whatever thread."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._lock = threading.Lock()

    def send(self, message: f.FromProcess) -> None:
        with self._lock, contextlib.suppress(OSError):  # the worker is gone, and this process ends
            self._writing.write(f.framed(message))
            self._writing.flush()

    def next(self) -> f.ToProcess | None:
        """What the worker says; None once it is gone."""
        size = self._reading.read(f.SIZE.size)
        if len(size) < f.SIZE.size:
            return None
        data = self._reading.read(f.SIZE.unpack(size)[0])
        return f.read_job(data)


class Attempt:
    """The job in hand: what its context tells through (an `Outlet` and an `ImageKeeper`), and how it hears that it is to stop."""

    def __init__(self, line: Line, job: f.Job) -> None:
        self._line, self.job, self.worker = line, job, job.worker
        self.answers: queue.SimpleQueue[f.ImageStands] = queue.SimpleQueue()
        self.bare = True
        self.over = False
        self.context = Context(job.dispatch, now(), self, self)
        self.started_at = self.context._started_at
        self._cancel: Any = None

    def send(self, execution_id: str, kind: str, data: bytes) -> None:
        if self.over:  # a thread that the handler left behind: by now the line is another's
            return
        self._line.send(f.Live(kind, msgspec.Raw(data)))  # type: ignore[arg-type]

    async def keep(self, data: bytes) -> Any:
        return await asyncio.to_thread(self.keep_in_thread, data)

    def keep_in_thread(self, data: bytes) -> Any:
        if self.over:
            raise AttemptCancelled(f"{self.job.dispatch.step} is over")
        self.bare = False
        self._line.send(f.KeepImage(self.job.number, msgspec.Raw(data)))
        answer = self.answers.get()
        if answer.stopped:
            raise AttemptCancelled(f"{self.job.dispatch.step} is to stop")
        return answer.image

    def stop(self) -> None:
        """From the thread that listens."""
        self.context.cancel()
        if (measured := self.context.measured) is not None:
            self._line.send(f.HasMeasured(measured))
        self.answers.put(f.ImageStands(self.job.number, stopped=True))
        if self._cancel is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                self._cancel()

    def call(self, task: Task[..., Any], arguments: dict[str, Any]) -> Any:
        make_current(self.context)
        return asyncio.run(self._on_a_loop(task, arguments)) if task.is_async else task.fn(**arguments)

    async def _on_a_loop(self, task: Task[..., Any], arguments: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        running = loop.create_task(task.fn(**arguments))
        self._cancel = lambda: loop.call_soon_threadsafe(running.cancel)
        return await running


class Child:
    """See the module."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._jobs: queue.SimpleQueue[f.Job | None] = queue.SimpleQueue()
        self._attempt: Attempt | None = None
        self._lock = threading.Lock()
        self._tasks: dict[f.Place, Task[..., Any]] = {}

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True, name="esexec listens").start()
        threading.Thread(target=self._tell_held_progress, daemon=True, name="esexec tells").start()
        while (job := self._jobs.get()) is not None:
            self._line.send(self._carry_out(job))

    def _listen(self) -> None:
        while (message := self._line.next()) is not None:
            if isinstance(message, f.Job):
                self._jobs.put(message)
                continue
            with self._lock:
                attempt = self._attempt
                if attempt is None or attempt.job.number != message.number:
                    continue
                if isinstance(message, f.Stop):
                    attempt.stop()
                else:
                    attempt.answers.put(message)
        self._jobs.put(None)
        if self._attempt is not None:
            _end_all()

    def _tell_held_progress(self) -> None:
        while True:
            time.sleep(_LISTEN_S)
            attempt = self._attempt
            if attempt is not None and attempt.context.voice is not None:
                attempt.context.voice.look_after(time.monotonic())

    def _carry_out(self, job: f.Job) -> f.FromProcess:
        try:
            task = self._task(job.place)
        except BaseException as error:
            return f.CannotBegin(_described(error, job.dispatch), final=isinstance(error, ValidationError))
        attempt = Attempt(self._line, job)
        with self._lock:
            self._attempt = attempt
        try:
            try:
                arguments = task.bind(job.dispatch.params, attempt.context, loose=job.dispatch.purpose == "compensation")
            except ValidationError as error:
                return f.CannotBegin(error.info)
            assert attempt.started_at is not None
            self._line.send(f.Began(attempt.started_at))
            return self._ended(attempt, task, arguments)
        finally:
            attempt.over = True
            with self._lock:
                self._attempt = None

    def _ended(self, attempt: Attempt, task: Task[..., Any], arguments: dict[str, Any]) -> f.Ended | f.EndedAsTold:
        context, job = attempt.context, attempt.job
        try:
            output = attempt.call(task, arguments)
            report, data = completed(job.worker, attempt.started_at, context, output)  # type: ignore[arg-type]
            return f.Ended(msgspec.Raw(data), bare=attempt.bare and not report.vars and report.directive is None)
        except BaseException as error:  # also `sys.exit()`
            if isinstance(error, asyncio.CancelledError | AttemptCancelled):
                if context.cancelled:
                    return f.EndedAsTold()
                error = ExecutionError("the handler cancelled itself", code="cancelled_itself")
            info, data = failed(job.worker, job.dispatch, attempt.started_at, error, context=context, measured=context.measured)
            return f.Ended(msgspec.Raw(data), info)
        finally:
            if context.voice is not None:
                context.voice.end()

    def _task(self, place: f.Place) -> Task[..., Any]:
        found = self._tasks.get(place)
        if found is None:
            found = self._tasks[place] = find(place)
            found.prepare()
        return found


def find(place: f.Place) -> Task[..., Any]:
    """The task at a place, its module imported. Raises what that raises; ValidationError (`task_not_found`) if there is none."""
    if place.module == "__main__":
        names = _main_names(place.file)
    else:
        try:
            module = importlib.import_module(place.module)
        except ModuleNotFoundError as error:
            if error.name != place.module or place.file is None:
                raise
            module = at_place(place.file)
        names = vars(module)
    found: Any = None
    for depth, part in enumerate(place.name.split(".")):
        found = names.get(part) if depth == 0 else getattr(found, part, None)
    if not isinstance(found, Task):
        raise ValidationError(
            f"a process of its own finds no task `{place.name}` in {place.module}",
            code="task_not_found",
            hint="it imports the module once more: tasks must stand in it whoever imports it",
        )
    return found


_main: dict[str, Any] = {}


def _main_names(file: str | None) -> dict[str, Any]:
    """What the program defines, which is run once more without being the program, as `multiprocessing` does."""
    if not _main and file is not None:
        _main.update(runpy.run_path(file, run_name="__mp_main__"))
    return _main


def _described(error: BaseException, dispatch: Dispatch) -> ErrorInfo:
    return describe(error, task_id=dispatch.step, attempt=dispatch.attempt, timestamp=now())


def _end_all() -> None:
    """End at once, with whatever the handler has started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _die_with(worker: int) -> None:
    """Be killed when the worker is, also while a handler lets no other thread run. Linux has that; elsewhere the pipe tells."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:
        os._exit(1)


def main(worker: int) -> None:
    """The pipes are the standard ones; a handler that prints, or reads, must not touch them."""
    reading, writing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    if sys.platform == "linux":
        _die_with(worker)
    for told in (signal.SIGTERM, signal.SIGINT):  # it is the worker that drains; what a handler starts is not to ignore them
        signal.signal(told, lambda number, frame: None)
    Child(Line(reading, writing)).run()

"""Running a handler: bind its params, call it on the loop or in a thread of its own, and make its report.

What is called depends on what the attempt is for: the task, or the fallback or compensation that is one as well; for a recovery
the strategy.

`begin` never waits for the handler. A thread that does not end when told cannot be ended by anyone: it is left to itself (a
daemon, so that it does not keep the process), with a warning, and its attempt is reported all the same.
"""

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import msgspec

from esexec import telemetry
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo, EsexecError, ExecutionError, UnknownTask, ValidationError
from esexec.domain.messages import Dispatch
from esexec.nats.objects import Objects
from esexec.tasks import AttemptCancelled, Context, RecoveryStrategy, Task
from esexec.tasks.asking import ask, ask_in_thread, is_async
from esexec.tasks.context import make_current
from esexec.tasks.handlers import ANY_TASK
from esexec.tasks.live import Outlet
from esexec.worker.attempt import Attempt, Why
from esexec.worker.frames import CannotBegin, EndedAsTold
from esexec.worker.images import Images
from esexec.worker.large import encoded, with_objects
from esexec.worker.pools import Lent, Pools
from esexec.worker.processes import HandlerProcess, Processes
from esexec.worker.reporting import completed, failed
from esexec.worker.results import CachedResults
from esexec.worker.telling import Tale
from esexec.world import monotonic, now

logger = logging.getLogger("esexec.worker")

Report = Callable[[Attempt, bytes], Awaitable[None]]
"""Takes the encoded report of an attempt that is over."""

_encode = msgspec.json.encode
_LOGGED_CHARS = 500
_COOPERATION_S = limits.timeout_grace_ms / 2000
"""How long a handler that ran past its timeout may take to end before it is left to itself."""
_OF_THE_GRACE = 0.9
"""How much of a cancel's grace a handler may take: so that its worker still tells how it ended, before the core gives up."""


class Runner:
    """Runs attempts of a worker's tasks, and asks its strategies. `report` hears of each attempt exactly once.

    `images` takes the before-images of handlers; without it they are kept nowhere. `outlet` takes what they tell live. `pools`
    lends them resources, `results` keeps outputs that serve again, `processes` are for those that run in one. `objects`: where
    large values are. `say_begun` reports the start of an attempt that has its last chance, before its handler is called.
    `hand_back` takes an attempt that was cancelled because the loop ends, and all that runs on it: False, if that is not so.
    """

    def __init__(
        self,
        worker: str,
        tasks: dict[str, Task[..., Any]],
        report: Report,
        *,
        strategies: Mapping[str, RecoveryStrategy] | None = None,
        images: Images | None = None,
        outlet: Outlet | None = None,
        pools: Pools | None = None,
        results: CachedResults | None = None,
        processes: Processes | None = None,
        objects: Objects | None = None,
        say_begun: Callable[[Attempt], Awaitable[None]] | None = None,
        hand_back: Callable[[Attempt], Awaitable[bool]] | None = None,
    ) -> None:
        self._worker, self._tasks, self._report = worker, tasks, report
        self._strategies, self._images, self._outlet = strategies or {}, images, outlet
        self._pools, self._results, self._objects = pools or Pools(()), results, objects
        self._say_begun, self._hand_back = say_begun, hand_back
        self._processes = processes or Processes(os.cpu_count() or 1)
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[None]] = set()

    async def begin(self, attempt: Attempt, now_mono: float) -> None:
        """Start the handler of an attempt; what cannot be started is reported at once. A question's strategy is here."""
        if attempt.why is not None:  # told to stop before it began
            if attempt.why != "draining":
                await self._over(attempt, _encode(r.Stopped(worker=self._worker, losses=attempt.losses)))
            return
        dispatch = attempt.dispatch
        if dispatch.objects:
            opening = self._keep(self._open(attempt))
            attempt.end = partial(self._loop.call_soon, _cancel, attempt, opening)
            return
        if dispatch.purpose == "recovery":
            await self._begin_recovery(attempt, self._strategies[dispatch.task], now_mono)
            return
        task = self._task_of(dispatch)
        if task is None:
            await self._reject(attempt, _unknown_task(dispatch.task, self._tasks))
            return
        if task.is_prepared:
            preparing = self._keep(self._prepare(attempt, task))
            attempt.end = partial(self._loop.call_soon, _cancel, attempt, preparing)
            return
        await self._call(attempt, task, now_mono, None)

    def _task_of(self, dispatch: Dispatch) -> Task[..., Any] | None:
        return self._tasks.get(dispatch.task) or self._tasks.get(ANY_TASK)

    def prepares(self, dispatch: Dispatch) -> bool:
        """Whether it is not certain as yet that a handler will be called: then its start is said here, once it is."""
        if dispatch.purpose == "recovery":
            return False
        task = self._task_of(dispatch)
        return task is None or task.is_prepared

    async def _call(self, attempt: Attempt, task: Task[..., Any], now_mono: float, lent: Lent | None) -> None:
        """Call the handler of a task."""
        context = self._started(attempt, now_mono, lent)
        dispatch = attempt.dispatch
        try:
            arguments = task.bind(dispatch.params, context, loose=dispatch.purpose == "compensation")
        except ValidationError as error:
            if lent is not None:
                lent.give_back()
            attempt.started_at = None
            await self._refuse(attempt, error.info)
            return
        call = task.fn if lent is None else lent.around(task.fn, is_async=task.is_async)
        if task.is_async:
            self._on_loop(attempt, call, arguments)
        elif not await self._in_thread(attempt, call, arguments) and lent is not None:
            lent.give_back()

    async def _open(self, attempt: Attempt) -> None:
        """What the dispatch left out is fetched; then it begins. Its timeout does not run as yet."""
        assert self._objects is not None
        try:
            attempt.dispatch = await with_objects(self._objects, attempt.dispatch)
        except EsexecError as error:
            await self._refuse(attempt, error.info)
        except BaseException as error:
            await self._not_begun(attempt, error)
        else:
            attempt.end = None
            await self.begin(attempt, monotonic())

    # Before a handler is called: cached results, resources ---------------------------------------------------------------

    async def _prepare(self, attempt: Attempt, task: Task[..., Any]) -> None:
        """What is found in the cache is the output; else the handler is called once it has what it uses.

        The attempt has not started as yet, so its timeout does not run.
        """
        found, lent, dispatch = None, None, attempt.dispatch
        try:
            if task.cache is not None and self._results is not None and dispatch.purpose in ("task", "fallback"):
                found = await self._results.look_up(task, task.cache, dispatch)
            if attempt.is_last_chance and self._say_begun is not None and not isinstance(found, r.Completed):
                await self._say_begun(attempt)
            if task.uses and not isinstance(found, r.Completed):
                lent = await self._pools.lend(task.uses, dispatch.timeout_ms / 1000 or None)
            if task.run_in is not None and not isinstance(found, r.Completed):
                attempt.to_keep = found
                await self._in_process(attempt, task)
                return
        except BaseException as error:
            await self._not_begun(attempt, error)
            return
        if attempt.why is not None:  # told to stop in this very moment
            if lent is not None:
                lent.give_back()
            await self._not_begun(attempt, asyncio.CancelledError())
        elif isinstance(found, r.Completed):
            await self._over(attempt, _encode(found))
        else:
            attempt.to_keep = found
            await self._call(attempt, task, monotonic(), lent)

    # In a process of its own -----------------------------------------------------------------------------------------------

    async def _in_process(self, attempt: Attempt, task: Task[..., Any]) -> None:
        """Raises what keeps the handler from being begun."""
        process, news = await self._processes.begin(task, attempt, self._worker)
        if isinstance(news, CannotBegin):
            self._processes.give_back(process)
            if news.final:
                await self._refuse(attempt, news.error)
            else:
                await self._over(attempt, _encode(r.Failed(worker=self._worker, ended_at=now(), error=news.error)))
            return
        attempt.started_at, attempt.started_mono, attempt.process = news.started_at, monotonic(), process
        attempt.images, attempt.end = self._images, partial(_end_process, attempt, process)
        if attempt.why is not None:  # told to stop in this very moment
            attempt.end()
        if telemetry.of_attempts:
            self._tell(attempt)
        self._keep(self._follow(attempt, process))

    async def _follow(self, attempt: Attempt, process: HandlerProcess) -> None:
        try:
            ended = await process.follow(attempt, self._tell_live, self._keep_image)
        except Exception as error:  # ProcessCrashed, or what it says means nothing
            if attempt.why in ("timeout", "cancelled"):
                await self.told_to_stop(attempt, "killed")
            else:
                await self._raised(attempt, error)
            return
        finally:
            self._processes.give_back(process)
        if _is_given_up(attempt):
            return
        if isinstance(ended, EndedAsTold):
            await self.told_to_stop(attempt, "cancelled")
            return
        if attempt.to_keep is not None and ended.bare and ended.error is None:
            report = msgspec.json.decode(ended.report, type=r.Completed)
            self._keep_result(attempt, report, report.output)
        if ended.error is not None:
            _log(logging.INFO, attempt, "failed", ended.error)
        data = bytes(ended.report)
        if len(data) > limits.output_bytes and ended.error is None and self._objects is not None:
            attempt.process = attempt.end = None  # it works for another attempt by now, which is not to be stopped for this one
            completed_one = msgspec.json.decode(data, type=r.Completed)
            data = await encoded(self._objects, attempt, completed_one, completed_one.output, data)
            if _is_given_up(attempt):
                return
        await self._over(attempt, data, error=ended.error)

    def _tell_live(self, execution_id: str, kind: str, data: bytes) -> None:
        if self._outlet is not None:
            self._outlet.send(execution_id, kind, data)

    async def _keep_image(self, attempt: Attempt, data: bytes) -> Any:
        return msgspec.json.decode(data) if self._images is None else await self._images.keep(attempt, data)

    def _keep_result(self, attempt: Attempt, report: r.Completed, output: Any) -> None:
        if attempt.to_keep is not None and self._results is not None and attempt.why is None:
            self._results.keep(attempt.to_keep, attempt.dispatch, report, output)

    async def _not_begun(self, attempt: Attempt, error: BaseException) -> None:
        if _is_given_up(attempt):
            return
        if isinstance(error, asyncio.CancelledError) and attempt.why is not None:
            await self._over(attempt, _encode(r.Stopped(worker=self._worker, losses=attempt.losses)))
        else:
            await self._raised(attempt, error)

    async def _begin_recovery(self, attempt: Attempt, strategy: RecoveryStrategy, now_mono: float) -> None:
        self._started(attempt, now_mono)
        arguments = {"strategy": strategy, "dispatch": attempt.dispatch}
        if is_async(strategy):
            self._on_loop(attempt, ask, arguments)
        else:
            await self._in_thread(attempt, ask_in_thread, arguments)

    def _started(self, attempt: Attempt, now_mono: float, lent: Lent | None = None) -> Context:
        attempt.started_at, attempt.started_mono = now(), now_mono
        attempt.images = self._images
        keeper = attempt if self._images is not None else None
        resources = None if lent is None else lent.resources
        attempt.context = context = Context(attempt.dispatch, attempt.started_at, keeper, self._outlet, resources)
        return context

    def _on_loop(self, attempt: Attempt, call: Callable[..., Any], arguments: dict[str, Any]) -> None:
        running = self._loop.create_task(self._await(attempt, call, arguments))
        # One turn later, for a task that is cancelled before its first step never hears of it, and would report nothing.
        attempt.end = partial(self._loop.call_soon, _cancel, attempt, running)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _await(self, attempt: Attempt, call: Callable[..., Any], arguments: dict[str, Any]) -> None:
        make_current(attempt.context)
        if telemetry.of_attempts:
            self._tell(attempt)
        try:
            output = await call(**arguments)
        except BaseException as error:  # also `sys.exit()`: it would end this worker, and each that is given the attempt after it
            await self._raised(attempt, error)
        else:
            await self._returned(attempt, output)

    async def _in_thread(self, attempt: Attempt, call: Callable[..., Any], arguments: dict[str, Any]) -> bool:
        """Call it in a thread; False if there is none, which is reported."""

        def work() -> None:
            finish: Callable[[], Coroutine[Any, Any, None]]
            try:
                finish = partial(self._returned, attempt, context.run(call, **arguments))
            except BaseException as error:
                finish = partial(self._raised, attempt, error)
            try:
                self._loop.call_soon_threadsafe(lambda: self._keep(finish()))
            except RuntimeError:
                logger.debug("%s ended after its worker", attempt.key)  # the loop is closed

        context = contextvars.copy_context()
        context.run(make_current, attempt.context)
        if telemetry.of_attempts:
            context.run(self._tell, attempt)
        try:
            threading.Thread(target=work, name=f"esexec {attempt.key}", daemon=True).start()
        except RuntimeError as error:  # no further thread can be had
            await self._raised(attempt, error)
            return False
        return True

    def _tell(self, attempt: Attempt) -> None:
        """Within the handler's context: it sees what hooks set there."""
        attempt.tale = Tale(telemetry.of_attempts, attempt, self._worker)

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _returned(self, attempt: Attempt, output: Any) -> None:
        if _is_given_up(attempt):
            return
        assert attempt.started_at is not None
        assert attempt.context is not None
        try:
            report, data = completed(self._worker, attempt.started_at, attempt.context, output)
            if len(data) > limits.output_bytes and self._objects is not None:
                attempt.end = None  # the handler is done: what would stop it would only lose what it gave
                data = await encoded(self._objects, attempt, report, report.output, data)
                if _is_given_up(attempt):
                    return
            if attempt.to_keep is not None and not (report.vars or report.directive or attempt.context.has_before_image):
                self._keep_result(attempt, report, output)
        except Exception as error:  # what `Err` holds, too
            await self._raised(attempt, error)
        else:
            if logger.isEnabledFor(logging.DEBUG):
                _log(logging.DEBUG, attempt, "completed")
            await self._over(attempt, data)

    async def _raised(self, attempt: Attempt, error: BaseException) -> None:
        if _is_given_up(attempt):
            return
        told = isinstance(error, asyncio.CancelledError | AttemptCancelled)
        if told and attempt.why is not None:
            await self.told_to_stop(attempt, "cancelled")
            return
        if told and self._hand_back is not None and await self._hand_back(attempt):
            self.let_go(attempt, "draining")
            return
        if told:
            error = ExecutionError("the handler cancelled itself", code="cancelled_itself")
        if isinstance(error, UnknownTask):
            attempt.started_at = None
            await self._reject(attempt, error.info)
            return
        context = attempt.context
        info, data = failed(self._worker, attempt.dispatch, attempt.started_at, error, context=context, measured=attempt.measured)
        _log(logging.INFO, attempt, "failed", info)
        await self._over(attempt, data, error=info)

    async def told_to_stop(self, attempt: Attempt, ended: Any) -> None:
        """The handler was told to end; `ended` says how it did, or that it did not."""
        if attempt.over:
            return
        assert attempt.started_at is not None
        kind = r.TimedOut if attempt.why == "timeout" else r.Stopped
        report = kind(worker=self._worker, started_at=attempt.started_at, ended_at=now(), ended=ended, measured=attempt.measured)
        if ended == "abandoned":
            logger.warning("%s does not end although it was told to (%s): left to itself", attempt.key, attempt.why)
        await self._over(attempt, _encode(report), why=attempt.why)

    async def look_after(self, attempt: Attempt, now_mono: float) -> None:
        """Called now and then for each attempt: ends what is late, gives up on what does not end."""
        if attempt.over or not attempt.started_mono:
            return
        if attempt.context is not None and attempt.context.voice is not None:
            attempt.context.voice.look_after(now_mono)
        if attempt.why is None and now_mono >= attempt.deadline_mono:
            attempt.stop("timeout", now_mono)
        elif attempt.why in ("timeout", "cancelled") and now_mono >= _patience_ends(attempt):
            if attempt.process is None:
                await self.told_to_stop(attempt, "abandoned")
            else:
                attempt.process.kill()  # and once it is dead, that is told

    async def _refuse(self, attempt: Attempt, info: ErrorInfo) -> None:
        _log(logging.INFO, attempt, "refused", info)
        ended_at, dispatch = now(), attempt.dispatch
        info = msgspec.structs.replace(info, retryable=False, task_id=dispatch.step, attempt=dispatch.attempt, timestamp=ended_at)
        await self._over(attempt, _encode(r.Failed(worker=self._worker, ended_at=ended_at, error=info)))

    async def _reject(self, attempt: Attempt, info: ErrorInfo) -> None:
        """This worker does not have the task."""
        _log(logging.WARNING, attempt, "rejected", info)
        info.timestamp = ended_at = now()
        await self._over(attempt, _encode(r.Rejected(worker=self._worker, ended_at=ended_at, error=info)))

    def let_go(self, attempt: Attempt, why: Why) -> None:
        """Somebody else ended it, or nobody: its handler counts no more, and that is the end of what is told of it."""
        if attempt.process is not None and not attempt.over:
            attempt.process.kill()
        tale, attempt.tale = attempt.tale, None
        if tale is not None:
            tale.end(monotonic(), why=why)

    async def _over(self, attempt: Attempt, data: bytes, *, error: ErrorInfo | None = None, why: Why | None = None) -> None:
        attempt.over = True
        if attempt.context is not None and attempt.context.voice is not None:
            attempt.context.voice.end()
        attempt.context = attempt.end = None  # both lead back to the attempt: it would be left to the collector
        tale, attempt.tale = attempt.tale, None
        if tale is None:
            await self._report(attempt, data)
            return
        ended_mono = monotonic()
        try:
            await self._report(attempt, data)  # first: nothing waits for hooks
        finally:
            tale.end(ended_mono, error=error, why=why)


def _is_given_up(attempt: Attempt) -> bool:
    """Whether its outcome is told already, or is another worker's to tell."""
    return attempt.over or attempt.why == "draining"


def _cancel(attempt: Attempt, running: asyncio.Task[None]) -> None:
    if not attempt.over:  # its handler may have ended just now: then nothing may come between it and its report
        running.cancel()


def _end_process(attempt: Attempt, process: HandlerProcess) -> None:
    """A handler that asks may end by itself for a moment; one that is handed back somebody else begins at once."""
    if attempt.why == "draining":
        process.kill()
    else:
        process.tell_to_stop()


def _patience_ends(attempt: Attempt) -> float:
    """When a handler that was told to stop is left to itself: a cancelled one has the grace, but no more than its timeout."""
    if attempt.why == "timeout" or attempt.process is not None:
        return attempt.stopped_mono + _COOPERATION_S
    grace_s = limits.cancel_grace_ms / 1000 * _OF_THE_GRACE
    return min(attempt.stopped_mono + grace_s, max(attempt.stopped_mono, attempt.deadline_mono) + _COOPERATION_S)


def _log(level: int, attempt: Attempt, what: str, error: ErrorInfo | None = None) -> None:
    """One line for the end of an attempt; the same in fields (`extra`) for handlers that make records of it."""
    if not logger.isEnabledFor(level):
        return
    dispatch = attempt.dispatch
    duration_ms = round((monotonic() - attempt.started_mono) * 1000) if attempt.started_mono else 0
    fields = {
        "execution_id": dispatch.execution_id,
        "step": dispatch.step,
        "task": dispatch.task,
        "attempt": dispatch.attempt,
        "duration_ms": duration_ms,
        "params": repr(dispatch.params)[:_LOGGED_CHARS],
        "code": error.code if error else None,
    }
    why = f": [{error.code}] {error.message[:_LOGGED_CHARS]}" if error else ""
    logger.log(
        level,
        "%s (%s) %s after %d ms%s; params %s",
        attempt.key,
        dispatch.task,
        what,
        duration_ms,
        why,
        fields["params"],
        extra=fields,
    )


def _unknown_task(name: str, tasks: dict[str, Task[..., Any]]) -> ErrorInfo:
    error: EsexecError = ValidationError(
        f"this worker has no task {name!r}",
        code="unknown_task",
        hint=f"it has: {', '.join(sorted({task.name for task in tasks.values()})) or 'none'}",
    )
    return error.info

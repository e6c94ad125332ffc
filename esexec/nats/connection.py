"""A connection to NATS that survives the server: one clear line when it goes away, one when it is back, no tracebacks.

The only place that configures nats-py. Hot paths use `Connection.client` (its `publish`, and `subscribe` through
`Connection.subscribe`); everything that is not hot uses `api` for JetStream's JSON requests.

What holds here: a publish while the server is away raises `Unavailable` at once and is not sent; a publish that was handed to
the socket before has an unknown outcome. Credentials are never logged: servers are named by scheme, host and port only.
"""

import asyncio
import inspect
import logging
import os
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Literal, Unpack

import msgspec
from nats import errors
from nats.aio.msg import Msg as Msg  # what subscriptions hand to their callbacks
from nats.aio.subscription import Subscription
from nats.errors import OutboundBufferLimitError as OutboundBufferLimitError  # what hot paths catch from `client.publish`

from esexec.domain import limits
from esexec.domain.errors import EsexecError, Unavailable, ValidationError
from esexec.nats.address import Auth as Auth
from esexec.nats.address import cannot_connect, is_refusal, redacted, servers_of
from esexec.nats.lean import LeanClient, Listener
from esexec.nats.outages import outages

logger = logging.getLogger("esexec.nats")

State = Literal["connected", "disconnected", "closed"]
StateCallback = Callable[[State], None]
Callback = Callable[[], Awaitable[None] | None]

PING_SECONDS: Final = 2
PINGS_OUTSTANDING: Final = 2
RECONNECT_SECONDS: Final = 0.25
CONNECT_SECONDS: Final = 2
CLOSE_SECONDS: Final = 2.0
"""A connection that went silent is given up after (PINGS_OUTSTANDING + 1) × PING_SECONDS; a connect after CONNECT_SECONDS."""

_CANCEL_AGAIN_S: Final = 0.05
_JETSTREAM_UNAVAILABLE: Final = 10008
_PERMISSION = re.compile(r"permissions violation for (\w+) (?:to|using)?\s*\"?([^\"\s]+)")


class ApiError(EsexecError):
    """JetStream answered an API request with an error. `status` is like HTTP's, `err_code` JetStream's own number."""

    default_code = "jetstream_error"

    def __init__(self, status: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})", status=status, err_code=err_code)
        self.status = status
        self.err_code = err_code
        self.description = description


async def connect(
    url: str, *, name: str, on_state: StateCallback | None = None, patience: float = 0.0, **auth: Unpack[Auth]
) -> "Connection":
    """Connects to `url` (several servers of a cluster separated by commas); `name` is shown in the server's monitoring.

    `patience`: seconds to keep trying a server that cannot be reached yet; refused credentials are never tried twice.
    Raises Unavailable when no server answers or ours refuses us.
    """
    connection = Connection(url, on_state=on_state)
    await connection._open(name, patience, auth)
    return connection


class Connection:
    """See the module. Made by `connect`; also an async context manager that closes it."""

    def __init__(self, url: str, *, on_state: StateCallback | None = None) -> None:
        self.client = LeanClient()
        self.url = url
        self.shown_url = redacted(url)
        self._on_state = on_state
        self._on_reconnect: list[Callback] = []
        self._on_disconnect: list[Callback] = []
        self._running: set[asyncio.Task[None]] = set()
        self._is_up = asyncio.Event()
        self._is_down = asyncio.Event()
        self._opened = False
        self._closing = False
        self._ending: asyncio.Task[None] | None = None
        self._violations: set[str] = set()
        self._refusals: set[str] = set()
        self._attempts_failed: asyncio.Queue[Exception] = asyncio.Queue()
        self.questions = asyncio.Semaphore(limits.questions_at_once)
        """Places for questions. All at once, as after a flood, the last would not be answered in their time."""

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the server is there as far as we know; it may have died a moment ago."""
        return self.client.is_connected

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended for good, by `close` or because the server threw us out."""
        return self.client.is_closed

    @property
    def max_payload(self) -> int:
        """The largest message in bytes that the server takes and that we would send."""
        return min(self.client.max_payload, limits.message_bytes)

    @property
    def server_version(self) -> str:
        """The version of the server that we are, or were last, connected to."""
        version = self.client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    # What it does ----------------------------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None, reply: str = "") -> None:
        """Hands a message to the socket. Raises Unavailable when disconnected (then it was not sent), ValidationError
        (`payload_too_large`) beyond `max_payload`. Header values must be ASCII."""
        if len(data) > self.max_payload:
            raise ValidationError(f"a message of {len(data)} bytes is larger than {self.max_payload}", code="payload_too_large")
        try:
            await self.client.publish(subject, data, reply=reply, headers=headers)
        except (errors.OutboundBufferLimitError, errors.ConnectionClosedError, errors.ConnectionDrainingError):
            raise self._unavailable("is not connected") from None

    async def subscribe(self, subject: str, cb: Callable[[Msg], Awaitable[None]], *, queue: str = "") -> Subscription:
        """Calls `cb` for each message, one after the other; nothing is ever dropped, so `cb` must not wait for long."""
        try:
            return await self.client.subscribe(subject, queue, cb=cb, pending_msgs_limit=-1, pending_bytes_limit=-1)
        except (errors.ConnectionClosedError, errors.ConnectionDrainingError):
            raise self._unavailable("is closed") from None

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        """As `subscribe`, but called by the reader itself: faster, and `listener` must never wait for another message."""
        try:
            return await self.client.listen(subject, listener)
        except (errors.ConnectionClosedError, errors.ConnectionDrainingError):
            raise self._unavailable("is closed") from None

    def rest(self, seconds: float) -> None:
        """Read nothing for so long, answers to requests neither: what comes meanwhile is read at once then. For a connection that
        only listens, to much, by who need not know at once: waking up costs more than most messages do."""
        self.client.rest(seconds)

    async def api(self, subject: str, body: Mapping[str, Any] | None = None, timeout: float = 5.0) -> dict[str, Any]:
        """One request to `$JS.API.<subject>` and its answer.

        Waits for a server that is away and asks again when it dies over the question, up to `timeout` seconds in all from when
        it has its place among the questions, so only ask what may be asked twice. Raises ApiError, or Unavailable when the time
        is over.
        """
        payload = b"" if body is None else msgspec.json.encode(body)
        try:
            async with self.questions, asyncio.timeout(timeout):
                while True:
                    answer = await self._ask(f"$JS.API.{subject}", payload)
                    error = None if answer is None else answer.get("error")
                    if answer is not None and error is None:
                        return answer
                    if error is not None and error.get("err_code") != _JETSTREAM_UNAVAILABLE:
                        raise ApiError(error.get("code", 0), error.get("err_code", 0), error.get("description", "error"))
                    # JetStream is still starting, or the server went away: both end by themselves.
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise self._unavailable(f"did not answer {subject} within {timeout:g} s") from None

    async def request(self, subject: str, data: bytes, timeout: float = 5.0, headers: dict[str, str] | None = None) -> Msg:
        """One question, one answer. Raises Unavailable when nobody answers in `timeout` seconds."""
        # In a task: nats-py's own waiting forgets that its caller was cancelled if the answer comes in that very moment.
        asking = asyncio.ensure_future(self.client.request(subject, data, timeout=timeout, headers=headers))
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.wait({asking})
            return asking.result()
        except errors.NoRespondersError:
            raise Unavailable(f"nobody answers on {subject}") from None
        except (errors.Error, TimeoutError):
            raise self._unavailable(f"did not answer on {subject} within {timeout:g} s") from None
        finally:
            asking.cancel()

    async def gather(self, subject: str, data: bytes, timeout: float = 5.0, quiet_s: float = 0.25) -> list[Msg]:
        """One question, the answers of all who give one, until no more came for `quiet_s`. Raises Unavailable if none does in
        `timeout` seconds."""
        answers: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self.client.new_inbox()
        subscription = await self.subscribe(inbox, answers.put)
        found: list[Msg] = []
        try:
            await self.publish(subject, data, reply=inbox)
            while True:
                async with asyncio.timeout(quiet_s if found else timeout):
                    answer = await answers.get()
                if not answer.data and (answer.headers or {}).get("Status") == "503":
                    raise Unavailable(f"nobody answers on {subject}")
                found.append(answer)
        except TimeoutError:
            if not found:
                raise self._unavailable(f"did not answer on {subject} within {timeout:g} s") from None
            return found
        finally:
            if not self.is_closed:
                await subscription.unsubscribe()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until the server has read everything published so far; False if it did not in `timeout` seconds."""
        # The task is left alone when time is over: nats-py's reader dies of a pong for a future that was cancelled.
        flushing = asyncio.ensure_future(self.client.flush(timeout=60))
        flushing.add_done_callback(lambda task: task.cancelled() or task.exception())
        done, _ = await asyncio.wait({flushing}, timeout=timeout)
        return bool(done) and flushing.exception() is None

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Waits until the server is there. Raises Unavailable after `timeout` seconds, or when closed for good."""
        try:
            async with asyncio.timeout(timeout):
                await self._is_up.wait()
        except TimeoutError:
            raise self._unavailable(f"was not there within {timeout:g} s") from None
        if self.is_closed:
            raise self._unavailable("is closed")

    def on_reconnect(self, callback: Callback) -> Callable[[], None]:
        """Calls `callback` (a function or a coroutine function) each time the server is back. Returns what undoes it."""
        self._on_reconnect.append(callback)
        return lambda: self._on_reconnect.remove(callback)

    def on_disconnect(self, callback: Callback) -> Callable[[], None]:
        """Calls `callback` each time the server is lost: what is in flight now has an unknown outcome."""
        self._on_disconnect.append(callback)
        return lambda: self._on_disconnect.remove(callback)

    async def close(self) -> None:
        """Sends what is waiting, if the server takes it within CLOSE_SECONDS, and ends the connection. Never hangs. Cancelled, it
        goes on to its end, for which another call waits."""
        if self._ending is None:
            self._closing = True
            self._ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        outages.over(self.shown_url, self)
        if self.client.is_connected:
            await self.flush(CLOSE_SECONDS)
        await self._end_client()
        for callback in list(self._running):
            callback.cancel()
        self._is_up.set()
        self._is_down.set()

    async def _end_client(self) -> None:
        closing = asyncio.ensure_future(self.client.close())
        closing.add_done_callback(lambda task: task.cancelled() or task.exception())  # the socket may be gone: then it is closed
        _, late = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Opening ---------------------------------------------------------------------------------------------------------

    async def _open(self, name: str, patience: float, auth: Auth) -> None:
        opening = asyncio.ensure_future(self._connect(name, auth))
        try:
            async with asyncio.timeout(max(patience, CONNECT_SECONDS) + 1):
                await self._opened_or_failed(opening, patience)
        except TimeoutError:
            raise self._unavailable("does not answer") from None
        finally:
            if not self._opened:
                self._closing = True
                await asyncio.shield(self._given_up(opening))  # also if whoever connects is cancelled once more

    async def _given_up(self, opening: "asyncio.Task[None]") -> None:
        # nats-py may forget that it was cancelled, and try for ever; or be connected in this very moment.
        while not opening.done():
            opening.cancel()
            await asyncio.wait({opening}, timeout=_CANCEL_AGAIN_S)
        if not opening.cancelled():
            opening.exception()
        await self._end_client()

    async def _opened_or_failed(self, opening: "asyncio.Task[None]", patience: float) -> None:
        # nats-py tries for ever, because it shall do so later; so its failures are counted here.
        loop = asyncio.get_running_loop()
        give_up_at, failures, servers = loop.time() + patience, 0, len(servers_of(self.url))
        while True:
            failed = asyncio.ensure_future(self._attempts_failed.get())
            try:
                await asyncio.wait({opening, failed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                failed.cancel()
            if opening.done():
                opening.result()
                self._opened = True
                self._is_up.set()
                self._tell("connected")
                return
            failures += 1
            error = failed.result()
            if is_refusal(error) or (failures >= servers and loop.time() >= give_up_at):
                raise cannot_connect(self.url, error)

    async def _connect(self, name: str, auth: Auth) -> None:
        options: dict[str, Any] = {key: value for key, value in auth.items() if value is not None}
        for file in (options.get("credentials"), options.get("nkeys_seed")):
            if file is not None and not os.access(file, os.R_OK):
                raise Unavailable(f"cannot read the credentials file {file}", hint="check its path and permissions")
        if "credentials" in options:
            options["user_credentials"] = str(options.pop("credentials"))
        try:
            await self.client.connect(
                servers=servers_of(self.url),
                name=name,
                pending_size=-1,  # nothing is buffered while disconnected: a call that failed must not land later
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]
                connect_timeout=CONNECT_SECONDS,
                ping_interval=PING_SECONDS,
                max_outstanding_pings=PINGS_OUTSTANDING,
                skip_subject_validation=True,  # ids are checked by their grammar before they get here
                error_cb=self._error,
                disconnected_cb=self._disconnected,
                reconnected_cb=self._reconnected,
                closed_cb=self._closed,
                **options,
            )
        except (errors.Error, OSError, ValueError) as error:
            raise cannot_connect(self.url, error) from None
        except ImportError:
            raise Unavailable("credentials files need the package nkeys", hint="pip install 'esexec[nkeys]'") from None

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"the NATS server at {self.shown_url} {what}")

    # Asking ----------------------------------------------------------------------------------------------------------

    async def _ask(self, subject: str, payload: bytes) -> dict[str, Any] | None:
        """The answer, or None when the question has to be put again."""
        await self._is_up.wait()
        if self.is_closed:
            raise self._unavailable("is closed")
        # A request in flight when the server dies would wait out its own time; the loss of the server ends it here.
        asking = asyncio.ensure_future(self.client.request(subject, payload, timeout=3600))
        lost = asyncio.ensure_future(self._is_down.wait())
        try:
            await asyncio.wait({asking, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return None
            answer: dict[str, Any] = msgspec.json.decode(asking.result().data)
            return answer
        except (errors.NoRespondersError, errors.OutboundBufferLimitError, errors.ConnectionClosedError):
            return None
        finally:
            asking.cancel()
            lost.cancel()

    # What nats-py tells ----------------------------------------------------------------------------------------------

    async def _error(self, error: Exception) -> None:
        if not self._opened:
            self._attempts_failed.put_nowait(error)
        elif isinstance(error, errors.SlowConsumerError):
            logger.error("a message on %s was dropped: its subscription is full", error.subject)
        elif violation := _PERMISSION.search(str(error)):
            self._violated(*violation.groups())
        elif str(error).startswith("nats: '"):
            self._refused(str(error).removeprefix("nats: ").strip("'").lower())
        elif isinstance(error, errors.Error | OSError | TimeoutError | EsexecError):
            logger.debug("NATS: %s", error)
        else:
            # It came out of a subscription's callback: a fault of ours, and the only one that is worth a traceback.
            logger.error("a callback failed: %s", error, exc_info=error)

    def _refused(self, reason: str) -> None:
        # Said once, not at every attempt to reconnect.
        if reason not in self._refusals:
            self._refusals.add(reason)
            logger.error("the NATS server at %s refuses us: %s", self.shown_url, reason)

    def _violated(self, verb: str, subject: str) -> None:
        if f"{verb} {subject}" in self._violations:
            return
        self._violations.add(f"{verb} {subject}")
        action = "subscribe to" if verb.startswith("subscription") else "publish to"
        logger.error("the NATS server at %s does not allow us to %s %s", self.shown_url, action, subject)

    async def _disconnected(self) -> None:
        if not self._opened:
            return
        self._is_up.clear()
        self._is_down.set()
        if self._closing:
            return
        first = outages.lost(self.shown_url, self)
        logger.log(logging.WARNING if first else logging.DEBUG, "lost the NATS server at %s; reconnecting", self.shown_url)
        self._tell("disconnected")
        self._call(self._on_disconnect)

    async def _reconnected(self) -> None:
        self._is_down.clear()
        self._is_up.set()
        self._refusals.clear()
        if self._closing:
            return
        last = outages.over(self.shown_url, self)
        logger.log(logging.WARNING if last else logging.DEBUG, "the NATS server at %s is back", self.shown_url)
        self._tell("connected")
        self._call(self._on_reconnect)

    async def _closed(self) -> None:
        outages.over(self.shown_url, self)
        self._is_up.set()
        self._is_down.set()
        if not self._closing:
            reason = str(self.client.last_error or "no reason given").removeprefix("nats: ")
            logger.error("the NATS server at %s closed our connection: %s", self.shown_url, reason)
        if self._opened:
            self._tell("closed")

    def _tell(self, state: State) -> None:
        if self._on_state is not None:
            self._guarded(lambda: self._on_state and self._on_state(state))

    def _call(self, callbacks: list[Callback]) -> None:
        for callback in list(callbacks):
            result = self._guarded(callback)
            if inspect.iscoroutine(result):
                task = asyncio.ensure_future(_awaited(result))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    @staticmethod
    def _guarded(callback: Callable[[], Any]) -> Any:
        # These run inside nats-py's reconnect task: an exception would end the reconnecting itself.
        try:
            return callback()
        except Exception:
            logger.exception("a callback of the connection failed")


async def _awaited(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        await coroutine
    except Unavailable as error:
        logger.debug("NATS: %s", error)  # it is away again already; the next reconnect calls again
    except Exception:
        logger.exception("a callback of the connection failed")

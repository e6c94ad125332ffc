"""Posts alerts to the URLs that were given with them: taken from the stream by a durable consumer, so each at least once.

A post is tried ten times within about ten minutes, then given up, with a warning. Those of one alert may arrive in another order
than they were told in, if one of them had to be tried again: `triggered_at`, `resolved_at` and `state` say what came when. A post
that was answered, but whose answer was lost, is made again with the same `Idempotency-Key`.
"""

import asyncio
import logging
from functools import partial
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

import msgspec

from esexec.domain import events as e
from esexec.domain.alerts import Alert
from esexec.domain.errors import EsexecError
from esexec.domain.kept_alerts import ALERTS_ENTITY
from esexec.log import codec
from esexec.log.port import Log
from esexec.nats.connection import Connection, Msg, OutboundBufferLimitError
from esexec.nats.pull import Puller, Tap, delivery_of
from esexec.nats.streams import ensure_webhooks
from esexec.nats.subjects import Subjects
from esexec.process import in_thread

logger = logging.getLogger("esexec.projections")

AT_ONCE = 8
"""So many posts are under way at once."""
TIMES = 10
"""So often a post is tried."""
_TIMEOUT_S, _WHOLE_S = 10.0, 20.0
"""So long nothing may come, and so long all of it may take: less than after which it is delivered again."""
_THREADS = 4 * AT_ONCE
"""So many posts may hang, given up or not, before no more are made."""
_FIRST_AGAIN_S, _LONGEST_AGAIN_S = 1.0, 120.0
_decode = msgspec.json.Decoder(Alert).decode


class Webhooks:
    """See the module. Any number of processes may do it: each post is made by one of them."""

    def __init__(self, connection: Connection, subjects: Subjects, log: Log) -> None:
        self._connection, self._subjects, self._log = connection, subjects, log
        self._urls: dict[str, str | None] = {}
        """By alert, where it was posted last: also what is over because it was removed is posted."""
        self._n = 0
        self._reading, self._posting = asyncio.Lock(), set[object]()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> "Webhooks":
        consumer = await ensure_webhooks(self._connection, self._subjects)
        self._puller = Puller(self._connection)
        self._puller.tap(self._subjects.events_stream, consumer, AT_ONCE, self._take)
        await self._puller.start()
        return self

    async def stop(self) -> None:
        """What is under way is left: it is delivered again."""
        await self._puller.stop()
        for task in list(self._tasks):
            task.cancel()

    async def _take(self, message: Msg, tap: Tap) -> None:
        task = asyncio.create_task(self._handle(message, tap))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, message: Msg, tap: Tap) -> None:
        word = b""
        try:
            alert = _decode(message.data)
            deliveries, _ = delivery_of(message.reply)
            word = await self._post(alert, deliveries)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            logger.warning("%s holds no alert", message.subject)
        except EsexecError as error:
            logger.debug("will be posted later: %s", error)
            word = _later(_FIRST_AGAIN_S)
        try:
            self._connection.client.post(message.reply, word)
        except OutboundBufferLimitError:
            pass  # disconnected: it is delivered again
        if tap.release():
            await tap.refill()

    async def _post(self, alert: Alert, deliveries: int) -> bytes:
        """How its message is to be acknowledged."""
        url = await self._url_of(alert.alert_id)
        if url is None:
            return b""
        problem = await self._tried(url, alert)
        if problem is None:
            return b""
        if deliveries >= TIMES:
            logger.warning("the webhook of alert %s is given up after %d times: %s", alert.alert_id, deliveries, problem)
            return b""
        logger.info("the webhook of alert %s is tried again: %s", alert.alert_id, problem)
        return _later(min(_FIRST_AGAIN_S * 2 ** (deliveries - 1), _LONGEST_AGAIN_S))

    async def _tried(self, url: str, alert: Alert) -> str | None:
        """As `post`, but not for ever."""
        if len(self._posting) >= _THREADS:
            return f"{_THREADS} others have no answer yet"
        place = object()
        self._posting.add(place)
        try:
            async with asyncio.timeout(_WHOLE_S):
                return await in_thread(partial(self._posted, url, alert, place), "esexec-webhook")
        except TimeoutError:
            return f"no answer within {_WHOLE_S:g} s"

    def _posted(self, url: str, alert: Alert, place: object) -> str | None:
        try:
            return post(url, alert)
        finally:
            self._posting.discard(place)

    async def _url_of(self, alert_id: str) -> str | None:
        async with self._reading:
            for stored in await self._log.load(ALERTS_ENTITY, after=self._n):
                self._n = stored.n
                for event in codec.decode(stored.data).events:
                    if isinstance(event, e.AlertSet):
                        self._urls[event.alert_id] = event.webhook
            return self._urls.get(alert_id)


def _later(delay_s: float) -> bytes:
    return b"-NAK " + msgspec.json.encode({"delay": int(delay_s * 1e9)})


def post(url: str, alert: Alert) -> str | None:
    """Post it: None, or why it did not arrive. Only an answer of 200 to 299 counts; redirections are not followed."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "esexec",
        "Idempotency-Key": f"{alert.id}.{alert.state}",
    }
    opener = OpenerDirector()  # nothing but http and https, whatever stands in a URL
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler()):
        opener.add_handler(handler)
    try:
        request = Request(url, data=msgspec.json.encode(alert), headers=headers, method="POST")
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            status: int = response.status
    except HTTPError as error:
        status = error.code
    except (OSError, HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None if 200 <= status < 300 else f"the answer is {status}"

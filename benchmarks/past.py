"""A past of many executions, as an engine would have left it in the log: a few real ones, recorded once and written again and
again under other ids, times and metadata, so many side by side. Of each the chain of hashes is its own, and whole.
"""

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, NamedTuple

import esexec
from benchmarks.tasks import broken, flaky, noop
from esexec.domain.commit import hash_of
from esexec.log import codec
from esexec.nats.connection import connect
from esexec.nats.publisher import Ack, Publisher
from esexec.nats.subjects import Subjects

REGIONS: Final = 4
CUSTOMERS: Final = 1_000
APART: Final = timedelta(milliseconds=10)
"""So long after the one the next execution of the past began."""
_SIDE_BY_SIDE = 30
_IN_FLIGHT = 2_000
_TIME = re.compile(r'"(\d{4}-\d\d-\d\dT[0-9:.]+Z)"')
_PREV = re.compile(r'"prev":"[0-9a-f]*"')
_REGION, _CUSTOMER = "-region-", "-customer-"


class Sample(NamedTuple):
    """A recorded execution: its commits, each as its pieces between the times in it, and how many events are in them all.
    `weight`: how often of all."""

    weight: int
    events: int
    execution_id: str
    began: datetime
    commits: list[list[str]]

    def told_as(self, execution_id: str, began: datetime, region: str, customer: str) -> Iterator[bytes]:
        """The same history, of another execution."""
        prev, shift = "", began - self.began
        for number, pieces in enumerate(self.commits):
            text = "".join(_moved(piece, shift) if place % 2 else piece for place, piece in enumerate(pieces))
            text = text.replace(self.execution_id, execution_id).replace(_REGION, region).replace(_CUSTOMER, customer)
            data = (_PREV.sub(f'"prev":"{prev}"', text) if number else text).encode()
            prev = hash_of(data)
            yield data


def _moved(time: str, shift: timedelta) -> str:
    return f'"{(datetime.fromisoformat(time) + shift).isoformat().replace("+00:00", "Z")}"'


def chain(steps: int) -> esexec.Plan:
    made: list[esexec.Step] = []
    for number in range(steps):
        made.append(esexec.Step(flaky if number == 1 else noop, id=f"s{number}", depends_on=made[-1:]))
    return esexec.Plan("order", steps=made)


def fan(width: int) -> esexec.Plan:
    many = [esexec.Step(noop, id=f"m{number}", depends_on=["first"], parallel=True) for number in range(width)]
    return esexec.Plan("report", steps=[esexec.Step(noop, id="first"), *many, esexec.Step(noop, id="last", depends_on=many)])


MIX: Final = {
    "single": (70, noop.name, None),
    "failed": (7, broken.name, None),
    "chain": (12, chain(5), None),
    "fan": (8, fan(6), None),
    "running": (3, chain(3), 4),
}
"""By kind: of a hundred so many are that; what is started; and how many commits there are of it by now (None: all)."""


async def record(url: str) -> list[Sample]:
    """The samples of the mix, as the engine that runs at this server carries them out."""
    samples = []
    async with esexec.connect(url, patience=10) as client:
        for kind, (weight, startable, commits) in MIX.items():
            options = {"metadata": {"region": _REGION, "customer": _CUSTOMER}, "initial_retry_delay": 0.05}
            result = await client.execute(startable, execution_id=f"sample-of-{kind}", **options)
            stored = (await client._log.load(result.execution_id))[:commits]
            texts = [_TIME.split(one.data.decode()) for one in stored]
            events = sum(len(codec.decode(one.data).events) for one in stored)
            samples.append(Sample(weight, events, result.execution_id, datetime.fromisoformat(texts[0][1]), texts))
    return samples


class Written(NamedTuple):
    """What was added to the log."""

    executions: int
    commits: int
    events: int


async def write(url: str, samples: list[Sample], executions: int) -> Written:
    """Add the past of so many executions to the log. Their ids are `past-0` and so on; the last began just now."""
    rng, begin = Random(5), datetime.now(UTC) - executions * APART
    ids = iter(range(executions))
    chosen = rng.choices(samples, [one.weight for one in samples], k=executions)

    def told(number: int) -> tuple[str, Iterator[bytes]]:
        name, region, customer = f"past-{number}", f"r{rng.randrange(REGIONS)}", f"c{rng.randrange(CUSTOMERS)}"
        return name, chosen[number].told_as(name, begin + number * APART, region, customer)

    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await connect(url, name="esexec-benchmark"))
        writing = _Writing(await stack.enter_async_context(Publisher(connection)), Subjects())
        going = deque((told(number), 1) for _, number in zip(range(_SIDE_BY_SIDE), ids, strict=False))
        while going:
            (name, commits), n = going.popleft()
            if (data := next(commits, None)) is not None:
                await writing.append(name, n, data)
                going.append(((name, commits), n + 1))
            elif (number := next(ids, None)) is not None:
                going.append((told(number), 1))
        await writing.all_stored()
    return Written(executions, writing.commits, sum(one.events for one in chosen))


class _Writing:
    def __init__(self, publisher: Publisher, subjects: Subjects) -> None:
        self._publisher, self._prefix = publisher, subjects.log_prefix
        self._in_flight, self._fewer = 0, asyncio.Event()
        self.commits = 0

    async def append(self, entity: str, n: int, data: bytes) -> None:
        while self._in_flight >= _IN_FLIGHT:
            self._fewer.clear()
            await self._fewer.wait()
        self._in_flight += 1
        self.commits += 1
        await self._publisher.send(f"{self._prefix}.{entity}.{n}", data, None, self._stored)

    async def _stored(self, ack: Ack) -> None:
        assert ack.error is None, ack.error
        self._in_flight -= 1
        self._fewer.set()

    async def all_stored(self) -> None:
        while self._in_flight:
            self._fewer.clear()
            await self._fewer.wait()

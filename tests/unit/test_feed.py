"""Who follows an execution goes on hearing of it, whoever else comes and goes."""

import asyncio
from typing import Any

import pytest

from esexec.client.feed import Feed
from esexec.nats.subjects import Subjects


class Slow:
    """A connection whose subscriptions take a moment, as they do while much waits to be sent; the third may fail."""

    is_closed = False

    def __init__(self, *, fails: bool = False) -> None:
        self.fails, self.open = fails, 0

    async def listen(self, subject: str, listener: Any) -> Any:
        await asyncio.sleep(0)
        if self.fails:
            raise ConnectionError
        self.open += 1
        return self

    async def unsubscribe(self) -> None:
        self.open -= 1


async def test_a_user_that_goes_early_takes_nothing_from_the_first() -> None:
    """Two follow one execution, the second is done before the first has its subscriptions: the first is still followed."""
    connection = Slow()
    feed = Feed(connection, Subjects(), None)  # type: ignore[arg-type]
    first = asyncio.create_task(feed.open("e1"))
    await asyncio.sleep(0)
    await feed.release(await feed.open("e1"))
    watch = await first
    assert feed._watches == {"e1": watch}
    assert connection.open == 2
    await feed.release(watch)
    assert (feed._watches, connection.open) == ({}, 0)


async def test_what_could_not_be_followed_is_not_kept() -> None:
    """A subscription that fails leaves no watch behind that would be deaf for the next user."""
    feed = Feed(Slow(fails=True), Subjects(), None)  # type: ignore[arg-type]
    with pytest.raises(ConnectionError):
        await feed.open("e1")
    assert feed._watches == {}

"""Asks a carrier for prices over HTTP, and orders. What goes wrong is raised as it comes.

The engine reads status and `Retry-After` off an HTTP error itself: a 503 is tried again, when the carrier said; a 409 is not.
"""

import asyncio
import urllib.error
import urllib.request
from typing import Final

import msgspec

from examples.logistics.carrier import Quote, QuoteRequest

HTTP_TIMEOUT_S: Final = 10.0


class Prices(msgspec.Struct, frozen=True):
    """What a carrier answered."""

    carrier: str
    quotes: list[Quote]


async def ask(url: str, request: QuoteRequest, idempotency_key: str) -> Prices:
    """The carrier's prices. Raises urllib's errors."""
    answer = await asyncio.to_thread(_post, f"{url}/quotes", msgspec.json.encode(request), idempotency_key)
    return msgspec.json.decode(answer, type=Prices)


async def order(url: str, prices: Prices, idempotency_key: str) -> None:
    """Order what was quoted. Raises urllib's errors."""
    await asyncio.to_thread(_post, f"{url}/orders", msgspec.json.encode(prices), idempotency_key)


def _post(url: str, body: bytes, idempotency_key: str) -> bytes:
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    http = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.urlopen(http, timeout=HTTP_TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        error.close()  # Its status and headers stay readable.
        raise

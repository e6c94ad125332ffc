"""A carrier's price service, small and local: HTTP on the loopback, in a thread.

    POST /quotes   {"service": "express", "consignments": [{"facility": "LYS", "shipments": 214, "weight_kg": …, …}]}
    POST /orders   {"carrier": …, "quotes": […]}   is always answered 409: every truck is taken

As such services are, it is not ready at once: the first two requests with a new `Idempotency-Key` are answered
503 with `Retry-After: 1`. The same request always gets the same price. It can also be run on its own:

    python -m examples.logistics.carrier --port 8099
"""

import argparse
import json
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final, cast

import msgspec

from examples.logistics.model import Service

BUSY_ANSWERS: Final = 2
RETRY_AFTER_S: Final = 1
BODY_BYTES_MAX: Final = 64 * 1024

BASE_EUR: Final = 38.0
"""Per shipment: paperwork and handling."""
TONNE_KM_EUR: Final = 0.142
HAZARD_EUR: Final = 65.0
FACTOR: Final = {Service.ECONOMY: 1.0, Service.EXPRESS: 1.35}


class Consignment(msgspec.Struct, frozen=True):
    """What one facility wants carried."""

    facility: str
    shipments: int
    weight_kg: float
    tonne_km: float
    hazardous: int = 0


class QuoteRequest(msgspec.Struct, frozen=True):
    service: Service
    consignments: list[Consignment]


class Quote(msgspec.Struct, frozen=True):
    """The price for one facility's consignment."""

    facility: str
    price_eur: float


def price(consignment: Consignment, service: Service) -> Quote:
    """By shipment, tonne-kilometre and danger, times the service's factor."""
    base = BASE_EUR * consignment.shipments + TONNE_KM_EUR * consignment.tonne_km + HAZARD_EUR * consignment.hazardous
    return Quote(consignment.facility, round(base * FACTOR[service], 2))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()

    def server_bind(self) -> None:
        # HTTPServer's own would look up this host's name, which can take seconds where there is no DNS.
        TCPServer.server_bind(self)

    def is_busy_for(self, key: str) -> bool:
        with self._lock:
            self._asked[key] = self._asked.get(key, 0) + 1
            return self._asked[key] <= BUSY_ANSWERS


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path not in ("/quotes", "/orders") or not 0 < length <= BODY_BYTES_MAX:
            return self._answer(404, {"error": "POST /quotes and POST /orders with a body are all there is"})
        body = self.rfile.read(length)
        if self.path == "/orders":
            return self._answer(409, {"error": "every truck is taken"})
        if cast(_Server, self.server).is_busy_for(self.headers.get("Idempotency-Key") or ""):
            return self._answer(503, {"error": "tariffs are being computed"}, retry_after_s=RETRY_AFTER_S)
        try:
            request = msgspec.json.decode(body, type=QuoteRequest)
        except msgspec.MsgspecError as error:
            return self._answer(400, {"error": str(error)})
        quotes = [price(consignment, request.service) for consignment in request.consignments]
        return self._answer(200, {"carrier": "Rapide & Söhne", "quotes": msgspec.to_builtins(quotes)})

    def _answer(self, status: int, content: dict[str, Any], retry_after_s: int | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after_s is not None:
            self.send_header("Retry-After", str(retry_after_s))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the progress view owns the terminal."""


class Carrier:
    """The service while a `with` block lasts. `url` is where it listens; port 0 takes a free one."""

    def __init__(self, port: int = 0) -> None:
        self._server = _Server(port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="carrier", daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Carrier":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@cache
def own_carrier_url() -> str:
    """The service of this process, started when it is first asked for; it ends with the process."""
    return Carrier().__enter__().url


def main() -> None:
    parser = argparse.ArgumentParser(description="The carrier's price service, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=8099)
    with Carrier(parser.parse_args().port) as carrier:
        print(f"{carrier.url}/quotes", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()

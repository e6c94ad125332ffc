"""Who is there. Every process of the engine answers on `$SRV.PING` and `$SRV.INFO`, as a NATS service (ADR-32) without endpoints:
which kind it is, its name, its namespace and its version, so that `nats micro ls` lists all of them. A worker answers in its
namespace as well, with what it can do: there all ask who want to know of workers.

Nothing is sent by itself, and nobody waits for an answer: it costs a few subscriptions at the start.
"""

import asyncio
from contextlib import suppress
from typing import Final, Literal

import msgspec

from esexec.domain import limits
from esexec.domain.errors import Unavailable
from esexec.domain.messages import WorkerPresence
from esexec.nats.connection import Connection, Msg
from esexec.nats.subjects import Subjects
from esexec.world import VERSION

Kind = Literal["executor", "worker", "projections"]
SERVICES: Final[dict[Kind, str]] = {"executor": "esexec-executor", "worker": "esexec-worker", "projections": "esexec"}
ANSWERS_S: Final = 0.6
"""So long answers of workers are waited for; those who live answer within milliseconds."""
_ANSWER_S: Final = 1.0
"""So long the first answer of a service is waited for."""


class _Said(msgspec.Struct):
    namespace: str = ""
    name: str = ""


class _Info(msgspec.Struct):
    id: str
    version: str = ""
    metadata: _Said | None = None


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """A process that lives. `version`: of esexec."""

    kind: Kind
    name: str
    version: str


async def be_present(connection: Connection, kind: Kind, namespace: str, name: str) -> None:
    """Answer from now on, until the connection is closed."""
    from nats.micro import add_service  # only where somebody starts

    said = {"namespace": namespace, "name": name}
    what = f"{kind} of the namespace {namespace}"
    # Shielded: it flushes, and nats-py's reader dies of a pong for a future that was cancelled.
    await asyncio.shield(add_service(connection.client, name=SERVICES[kind], version=VERSION, description=what, metadata=said))


async def who_is_there(connection: Connection, namespace: str, kind: Kind) -> list[Present]:
    """The processes of a kind in a namespace that answer now, by name."""
    try:
        answers = await connection.gather(f"$SRV.INFO.{SERVICES[kind]}", b"", _ANSWER_S)
    except Unavailable:
        return []
    found = []
    for answer in answers:
        try:
            info = msgspec.json.decode(answer.data, type=_Info)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if (said := info.metadata) is not None and said.namespace == namespace:
            found.append(Present(kind=kind, name=said.name or info.id, version=info.version))
    return sorted(found, key=lambda one: one.name)


_presence = msgspec.json.Decoder(WorkerPresence).decode


async def workers_there(connection: Connection, subjects: Subjects, wait: float = ANSWERS_S) -> list[WorkerPresence]:
    """The workers of a namespace that answer within `wait` seconds, by name; 1,000 at most. Raises Unavailable when
    disconnected."""
    heard: dict[str, WorkerPresence] = {}

    async def on_answer(message: Msg) -> None:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            answer = _presence(message.data)
            if len(heard) < limits.workers_shown or answer.worker in heard:
                heard[answer.worker] = answer

    subscription = await connection.subscribe(subjects.who_is_here, on_answer)
    try:
        await connection.publish(subjects.who_is_there, b"")
        await asyncio.sleep(wait)
    finally:
        if not connection.is_closed:
            await subscription.unsubscribe()
    return [heard[name] for name in sorted(heard)]

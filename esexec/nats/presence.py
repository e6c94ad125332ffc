"""Who is there: every process of the engine answers on `$SRV.PING` and `$SRV.INFO`, as a NATS service (ADR-32) without endpoints.

So `nats micro ls` lists executors and workers with their versions, and `esexec doctor` tells a living worker from one whose tasks
are only remembered. Nothing is sent by itself, and nobody waits for an answer: it costs a few subscriptions at the start.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from esexec.domain.errors import Unavailable
from esexec.nats.connection import Connection
from esexec.world import VERSION

Kind = Literal["executor", "worker", "projections"]
SERVICES: Final[dict[Kind, str]] = {"executor": "esexec-executor", "worker": "esexec-worker", "projections": "esexec"}
_ANSWER_S: Final = 1.0
"""So long the first answer is waited for; those who live answer within milliseconds."""


class _Said(msgspec.Struct):
    namespace: str = ""
    name: str = ""
    tasks: str = ""
    queues: str = ""


class _Info(msgspec.Struct):
    id: str
    version: str = ""
    metadata: _Said | None = None


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """A process that lives. `tasks`, `queues`: of a worker, which it has and serves. `version`: of esexec."""

    kind: Kind
    name: str
    version: str
    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()


async def be_present(
    connection: Connection, kind: Kind, namespace: str, name: str, *, tasks: Iterable[str] = (), queues: Iterable[str] = ()
) -> None:
    """Answer from now on, until the connection is closed."""
    from nats.micro import add_service  # only where somebody starts

    said = {"namespace": namespace, "name": name}
    if kind == "worker":
        said |= {"tasks": ",".join(sorted(tasks)), "queues": ",".join(sorted(queues))}
    what = f"{kind} of the namespace {namespace}"
    await add_service(connection.client, name=SERVICES[kind], version=VERSION, description=what, metadata=said)


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
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if (said := info.metadata) is not None and said.namespace == namespace:
            tasks, queues = (tuple(filter(None, names.split(","))) for names in (said.tasks, said.queues))
            found.append(Present(kind=kind, name=said.name or info.id, version=info.version, tasks=tasks, queues=queues))
    return sorted(found, key=lambda one: one.name)

"""The server: its version, JetStream and what the account may store, when it writes to the disk, its clock, its payload."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from esexec.cli.checks import Check, Patient, ok, problem, warning
from esexec.domain import limits
from esexec.domain.errors import EsexecError, Unavailable
from esexec.nats.connection import ApiError
from esexec.nats.embedded import sync_of
from esexec.nats.streams import OLDEST_SERVER
from esexec.world import now

_ANSWER_S: Final = 3.0
_FULL, _NEARLY_FULL = 0.95, 0.8
_CLOCK_OFF_S, _CLOCK_WRONG_S = 1.0, 30.0
_SYNC_HINT: Final = "`sync_interval: always` in the server's `jetstream` block keeps what was acknowledged through a power cut"


async def version(patient: Patient) -> AsyncIterator[Check]:
    """Whether it is new enough, and how far away."""
    connection, oldest = patient.connection, ".".join(map(str, OLDEST_SERVER))
    begin = time.perf_counter()
    await connection.flush(_ANSWER_S)
    away_ms = (time.perf_counter() - begin) * 1000
    said = connection.server_version
    if tuple(int(part) for part in said.split(".")[:2]) < OLDEST_SERVER:
        yield problem("server", f"nats-server {said} at {patient.server.place}", f"esexec needs {oldest} or newer")
    else:
        yield ok("server", f"nats-server {said} at {patient.server.place}, {away_ms:.1f} ms away")


async def jetstream(patient: Patient) -> AsyncIterator[Check]:
    """Whether there is JetStream for this account, and how full it is."""
    try:
        info = await patient.connection.api("INFO", timeout=_ANSWER_S)
    except ApiError as error:
        hint = "give the server a `jetstream` block, and the account `jetstream: enabled`"
        yield problem("jetstream", f"JetStream is not on for this account: {error.description}", hint)
        return
    except Unavailable:
        hint = "is there a `jetstream` block in the server's configuration? A cluster may have no leader yet"
        yield problem("jetstream", f"JetStream did not answer within {_ANSWER_S:g} s", hint)
        return
    yield ok("jetstream", f"on, {info['streams']} streams, {info['consumers']} consumers in this account")
    for check in _account_limits(info):
        yield check


def _account_limits(info: dict[str, Any]) -> list[Check]:
    bounds, found = info.get("limits") or {}, []
    for what, limit, unit in (("storage", "max_storage", True), ("memory", "max_memory", True),
                              ("streams", "max_streams", False), ("consumers", "max_consumers", False)):  # fmt: skip
        most, used = bounds.get(limit, -1), info.get(what, 0)
        if most is None or most < 0:
            continue
        shown = f"{what}: {_bytes(used)} of {_bytes(most)}" if unit else f"{what}: {used} of {most}"
        share = used / most if most else 1.0
        if what == "memory" and most == 0:
            found.append(
                warning("limits", "the account may keep nothing in memory", "progress and log lines of handlers need it")
            )
        elif share >= _FULL:
            found.append(problem("limits", shown, f"raise {limit} of the account: what does not fit is refused"))
        elif share >= _NEARLY_FULL:
            found.append(warning("limits", shown, f"raise {limit} of the account before it is full"))
        else:
            found.append(ok("limits", shown))
    return found or [ok("limits", "none: the account may fill the server's disk")]


def _bytes(count: int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} TB"


async def payload(patient: Patient) -> AsyncIterator[Check]:
    """Whether messages of every size that esexec sends are taken."""
    most = patient.connection.client.max_payload
    if most < limits.message_bytes:
        hint = f"set `max_payload: {limits.message_bytes}` in the server's configuration"
        yield problem("max_payload", f"{most} bytes; esexec sends up to {limits.message_bytes}", hint)
    else:
        yield ok("max_payload", f"{most} bytes")


async def sync(patient: Patient) -> AsyncIterator[Check]:
    """When the server writes to the disk, as far as anybody tells: our own one, the system account, the monitoring port."""
    if patient.server.store is not None and (said := sync_of(patient.server.store)) is not None:
        yield _synced(said == "always", said, "the store's own server")
        return
    config = await _asked_of_system(patient)
    where = "the system account"
    if config is None and patient.monitoring is not None:
        config, where = await asyncio.to_thread(_asked_of_monitoring, patient.monitoring), patient.monitoring
        if config is None:
            yield warning("sync", f"{patient.monitoring} does not answer /jsz", "give the URL of the server's monitoring port")
            return
    if config is None:
        hint = f"--monitoring http://HOST:8222 asks the server's monitoring port. {_SYNC_HINT}"
        yield warning("sync", "when the server writes to the disk cannot be known from here", hint)
        return
    yield _synced(bool(config.get("sync_always")), f"{config.get('sync_interval', 0) / 1e9:g} s", where)


def _synced(always: bool, interval: str, where: str) -> Check:
    if always:
        return ok("sync", f"before every acknowledgement ({where})")
    return warning("sync", f"every {interval} ({where}): a power cut takes what was acknowledged since", _SYNC_HINT)


async def _asked_of_system(patient: Patient) -> dict[str, Any] | None:
    """Answered only to users of the system account."""
    try:
        answer = await patient.connection.request("$SYS.REQ.SERVER.PING.JSZ", b'{"config":true}', timeout=0.5)
        config: dict[str, Any] | None = msgspec.json.decode(answer.data)["data"]["config"]
    except (EsexecError, msgspec.MsgspecError, KeyError, TypeError):
        return None
    return config


def _asked_of_monitoring(url: str) -> dict[str, Any] | None:
    import urllib.request  # it takes its time, and nobody else needs it

    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/jsz?config=true", timeout=_ANSWER_S) as answer:
            config: dict[str, Any] | None = msgspec.json.decode(answer.read())["config"]
    except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
        return None
    return config


async def clock(patient: Patient) -> AsyncIterator[Check]:
    """How far this machine's clock is from the server's, to within half the way there and back."""
    before = now()
    try:
        info = await patient.connection.api(f"STREAM.INFO.{patient.subjects.log_stream}", timeout=_ANSWER_S)
        there = datetime.fromisoformat(info["ts"]).astimezone(UTC)
    except (EsexecError, KeyError, ValueError):
        return
    off_s = abs((there - (before + (now() - before) / 2)).total_seconds())
    hint = "let both machines follow the same time servers (NTP)"
    if off_s < _CLOCK_OFF_S:
        yield ok("clock", f"this machine and the server differ by {off_s * 1000:.0f} ms")
    else:
        said = f"this machine and the server differ by {off_s:.1f} s: times in histories, and deadlines given here, are off"
        yield (problem if off_s >= _CLOCK_WRONG_S else warning)("clock", said, hint)

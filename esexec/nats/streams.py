"""What stands on the server: the eleven streams of a namespace and the durable consumers on them.

Declared as data (`stream_configs`, `partition_consumers`, …) and brought about by `ensure_streams`, which only ever adds: what is
there already is never changed behind the operator's back, but compared (`drift`) and told in the log. Only settings that esexec
depends on are named and compared; all others are the server's defaults or the operator's choice. What a newer version only adds
to a stream that an older one made (`_GROWN`) is added there as well.

Every function here may be called by many processes at once.
"""

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from esexec.domain import limits
from esexec.domain.errors import Unavailable
from esexec.nats.connection import ApiError, Connection
from esexec.nats.subjects import DISPENSABLE, STRAY_CONSUMER, STREAMS, TIMER_CONSUMER, WEBHOOKS_CONSUMER, Subjects

logger = logging.getLogger("esexec.nats")

Config = dict[str, Any]

ACK_WAIT_MS: Final = 30_000
"""How long an executor may take for one message before it is handed out again. It acks after the effects."""
PULLS_WAITING: Final = 10_000
"""Pull requests that may be open on one consumer; the server's default of 512 would cap the number of workers."""
LANES: Final = 10_000
"""Consumers on TASKS. Unless a stream says otherwise the server allows 1000."""
EVENTS_KEPT_MS: Final = 7 * 24 * 3600 * 1000

OLDEST_SERVER: Final = (2, 12)
"""The first version with message schedules."""
_TOLD: Final = 5
"""So many differences are told in the log one by one."""

_ANOTHER_LOOK_S: Final = 0.3
_NANOSECONDS: Final = 1_000_000
STREAM_NOT_FOUND: Final = 10059
_STREAM_DIFFERS: Final = 10058
_NO_STORE: Final = 10049
_STORE_TIMES, _STORE_AGAIN_S = 5, 0.05
_CONSUMER_NOT_FOUND: Final = 10014
_MESSAGE_NOT_FOUND: Final = 10043
_CONSUMER_DIFFERS: Final = 10148


_GROWN: Final = {"EVENTS": ("allow_atomic", "allow_msg_ttl")}
"""Settings, besides subjects, that streams did not have in earlier versions, and that take nothing away."""


class Consumer(NamedTuple):
    """A durable consumer: on which stream, and its settings."""

    stream: str
    config: Config


# What there shall be -------------------------------------------------------------------------------------------------


def stream_configs(subjects: Subjects, replicas: int = 1) -> list[Config]:
    """The streams of design §2, as JetStream is told to make them."""
    special: dict[str, Config] = {
        "COMMANDS": {
            "subjects": [subjects.commands_all],
            "subject_transform": {"src": subjects.commands_all, "dest": subjects.commands_transform},
            "retention": "workqueue",
            "max_msgs": limits.commands_waiting,
            "discard": "new",
        },
        # Without any bound: what is reported must never be refused, for it is what empties the other streams.
        "INBOX": {
            "subjects": [subjects.inbox_all],
            "subject_transform": {"src": subjects.inbox_all, "dest": subjects.inbox_transform},
            "retention": "workqueue",
        },
        # One message per subject, and a second one refused: a commit's number is taken once, whoever publishes.
        "LOG": {
            "subjects": [subjects.logs_all],
            "max_msgs_per_subject": 1,
            "discard": "new",
            "discard_new_per_subject": True,
            "deny_delete": True,
            "allow_direct": True,
            "republish": {"src": subjects.logs_all, "dest": subjects.commits_transform},
        },
        "TASKS": {
            "subjects": [subjects.tasks_all],
            "retention": "workqueue",
            "max_consumers": LANES,
            "allow_direct": True,
        },
        # A work queue, so that a timer that fired is gone once it was forwarded. Waiting schedules match no consumer and
        # stay. (With retention by interest they would vanish at once; `discard: new` is refused for schedules.)
        "TIMERS": {
            "subjects": [subjects.timers_all, subjects.due_all],
            "retention": "workqueue",
            "allow_msg_schedules": True,
        },
        # Events in batches, each with the position that it goes up to: that one must never expire (docs/adr/018).
        "EVENTS": {
            "subjects": [subjects.events_all, subjects.event_position, subjects.alert("*")],
            "max_age": EVENTS_KEPT_MS * _NANOSECONDS,
            "allow_direct": True,
            "allow_atomic": True,
            "allow_msg_ttl": True,
        },
        "DEAD": {"subjects": [subjects.dead_all], "allow_direct": True},
        "ARCHIVE": {"subjects": [subjects.archive_all], "allow_direct": True},
        # The last of what handlers tell, for who begins to watch later. Published without a reply subject: nobody waits.
        "LIVE": {
            "subjects": subjects.live_kept,
            "storage": "memory",
            "max_msgs_per_subject": limits.live_kept,
            "max_bytes": limits.live_bytes,
            "max_age": limits.live_kept_ms * _NANOSECONDS,
            "allow_direct": True,
        },
        # Results that may serve again (docs/adr/017). The oldest give way; a message's own TTL ends it sooner.
        "CACHE": {
            "subjects": [subjects.cache_all],
            "max_msgs_per_subject": 1,
            "max_bytes": limits.cache_bytes,
            "allow_msg_ttl": True,
            "allow_direct": True,
        },
        # A bucket of JetStream's object store: that an object's description is replaced is how buckets are written. What is read
        # is believed only if its hash is its name (`objects`).
        "OBJECTS": {
            "subjects": subjects.objects_all,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        },
    }
    common: Config = {"retention": "limits", "storage": "file", "discard": "old", "max_msgs": -1, "max_bytes": -1, "max_age": 0,
                      "num_replicas": replicas}  # fmt: skip
    return [{"name": subjects.stream(name)} | common | special[name] for name in STREAMS]


def executor_consumers(subjects: Subjects) -> list[Consumer]:
    """The durable consumers of the executors: one per partition of COMMANDS and of INBOX, one of each for what strayed past the
    partitions, and one of the timers that fired."""
    consumers = [
        Consumer(subjects.timers_stream, _consumer(TIMER_CONSUMER, subjects.due_all, ACK_WAIT_MS)),
        Consumer(subjects.commands_stream, _consumer(STRAY_CONSUMER, subjects.stray_commands, ACK_WAIT_MS) | _IN_MEMORY),
        Consumer(subjects.inbox_stream, _consumer(STRAY_CONSUMER, subjects.stray_inbox, ACK_WAIT_MS) | _IN_MEMORY),
    ]
    for partition in range(limits.partitions):
        name = subjects.partition_consumer(partition)
        of_commands = _consumer(name, subjects.commands_partition(partition), ACK_WAIT_MS) | _IN_MEMORY
        of_inbox = _consumer(name, subjects.inbox_partition(partition), ACK_WAIT_MS) | _IN_MEMORY
        consumers += [Consumer(subjects.commands_stream, of_commands), Consumer(subjects.inbox_stream, of_inbox)]
    return consumers


_IN_MEMORY: Final[Config] = {"mem_storage": True}
"""What a partition's consumer knows is which messages are being handled: nothing that must outlive the server, for what was not
acknowledged is still in the stream. Kept in files, 32 consumers wrote 320 small files a second, a quarter of the
server's time (docs/adr/001). After a restart of the server whoever pulls makes them again."""


def lane_consumer(subjects: Subjects, queue: str, priority: int, lease_ms: int = limits.lease_ms) -> Consumer:
    """The durable consumer of one lane of TASKS. Its ack wait is the lease."""
    name = subjects.lane_consumer(queue, priority)
    return Consumer(subjects.tasks_stream, _consumer(name, subjects.lane(queue, priority), lease_ms))


def _consumer(name: str, subject: str, ack_wait_ms: int) -> Config:
    return {
        "name": name,
        "durable_name": name,
        "filter_subject": subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": ack_wait_ms * _NANOSECONDS,
        # Deliveries are counted by esexec, and messages in flight bounded by who pulls: a bound here would let a few
        # delayed messages block all others.
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": PULLS_WAITING,
    }


# Bringing it about ---------------------------------------------------------------------------------------------------


async def ensure_streams(connection: Connection, subjects: Subjects, *, replicas: int = 1) -> None:
    """Makes every stream and every consumer of the executors that is missing. What exists is left as it is; where it differs
    from what esexec needs, a warning names the setting. Raises ApiError where the server refuses, Unavailable (also for a
    server older than `OLDEST_SERVER`, which would take the settings and not heed them)."""
    version = tuple(int(part) for part in connection.server_version.split(".")[:2])
    if version < OLDEST_SERVER:
        raise Unavailable(
            f"the NATS server at {connection.shown_url} is version {connection.server_version}",
            code="server_too_old",
            hint=f"esexec needs {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer: older ones know no message schedules",
        )
    configs = stream_configs(subjects, replicas)
    made = await asyncio.gather(*(_create_stream(connection, config) for config in configs))
    grown = [config for config, new in zip(configs, made, strict=True) if not new and _short_name(config) in _GROWN]
    await asyncio.gather(*(_grow_stream(connection, config) for config in grown))
    consumers = executor_consumers(subjects)
    made += await asyncio.gather(*(_create_consumer(connection, consumer) for consumer in consumers))
    if not all(made):
        differences = await drift(connection, subjects, replicas=replicas)
        for line in differences[:_TOLD]:
            logger.warning("%s", line)
        if len(differences) > _TOLD:
            logger.warning("… and %d more settings differ from what esexec needs", len(differences) - _TOLD)


async def ensure_lane(connection: Connection, subjects: Subjects, queue: str, priority: int, lease_ms: int | None = None) -> str:
    """Makes the lane's consumer unless it exists, and returns its name.

    An existing one keeps its lease, with a warning if it is not `lease_ms` (None: any lease will do).
    """
    consumer = lane_consumer(subjects, queue, priority, limits.lease_ms if lease_ms is None else lease_ms)
    if not await _create_consumer(connection, consumer) and lease_ms is not None:
        for line in await _consumer_drift(connection, consumer):
            logger.warning("%s", line)
    return str(consumer.config["name"])


async def ensure_webhooks(connection: Connection, subjects: Subjects) -> str:
    """Makes the consumer of the alerts that are to be posted, unless it exists, and returns its name."""
    await _create_consumer(
        connection, Consumer(subjects.events_stream, _consumer(WEBHOOKS_CONSUMER, subjects.alert("*"), ACK_WAIT_MS))
    )
    return WEBHOOKS_CONSUMER


async def lanes_waiting(connection: Connection, subjects: Subjects) -> dict[str, int]:
    """By queue, how many attempts wait for a worker, on all its lanes."""
    waiting: dict[str, int] = {}
    for lane in await lane_depths(connection, subjects):
        waiting[lane.queue] = waiting.get(lane.queue, 0) + lane.waiting
    return waiting


async def lane_names(connection: Connection, subjects: Subjects) -> list[tuple[str, int]]:
    """The lanes that exist, as (queue, priority), sorted."""
    lanes = []
    for name in await _all_names(connection, f"CONSUMER.NAMES.{subjects.tasks_stream}", "consumers"):
        lane = subjects.parse_lane(name)
        if lane is not None:
            lanes.append(lane)
    return sorted(lanes)


async def ensure_stored(connection: Connection, subjects: Subjects, purpose: str, max_bytes: int = -1) -> None:
    """Makes the stream of what `esexec.eventsourcing` stores for a purpose. Beyond `max_bytes` the oldest give way."""
    config: Config = {
        "name": subjects.stored_stream(purpose),
        "subjects": [subjects.stored_all(purpose)],
        "max_bytes": max_bytes,
        "allow_direct": True,
        "allow_atomic": True,
    }
    await _create_stream(connection, config)


class LaneDepth(msgspec.Struct, frozen=True):
    """A lane: how many attempts wait on it for a worker, and how many workers have in hand."""

    queue: str
    priority: int
    waiting: int
    in_flight: int


async def lane_depths(connection: Connection, subjects: Subjects) -> list[LaneDepth]:
    """The lanes that exist, by queue, the highest priority first."""
    found: list[LaneDepth] = []
    seen = 0
    while True:
        answer = await connection.api(f"CONSUMER.LIST.{subjects.tasks_stream}", {"offset": seen})
        page = answer.get("consumers") or []
        seen += len(page)
        for one in page:
            if (lane := subjects.parse_lane(one["name"])) is not None:
                found.append(LaneDepth(*lane, waiting=int(one["num_pending"]), in_flight=int(one["num_ack_pending"])))
        if not page or seen >= answer["total"]:
            return sorted(found, key=lambda one: (one.queue, -one.priority))


async def waiting_in(connection: Connection, stream: str) -> int:
    """How many messages a stream holds."""
    return int((await connection.api(f"STREAM.INFO.{stream}"))["state"]["messages"])


async def pullers_of(connection: Connection, stream: str) -> dict[str, int]:
    """By consumer of a stream, how many pull for more, or have something in hand; two looks, for a pull ends now and then."""
    found: dict[str, int] = {}
    for look in range(2):
        seen = 0
        while True:
            answer = await connection.api(f"CONSUMER.LIST.{stream}", {"offset": seen})
            page = answer.get("consumers") or []
            seen += len(page)
            for one in page:
                busy = int(one.get("num_waiting", 0)) + int(one.get("num_ack_pending", 0))
                found[one["name"]] = max(found.get(one["name"], 0), busy)
            if not page or seen >= answer["total"]:
                break
        if all(found.values()):
            break
        if look == 0:
            await asyncio.sleep(_ANOTHER_LOOK_S)
    return found


async def namespaces(connection: Connection) -> list[str]:
    """The namespaces that there are on the server, sorted."""
    names = await _all_names(connection, "STREAM.NAMES", "streams")
    ours = (re.fullmatch(r"ESEXEC_(.+)_LOG", name) for name in names)
    return sorted(match[1] for match in ours if match is not None)


async def delete_message(connection: Connection, stream: str, sequence: int) -> None:
    """Deletes one message for good; that it is gone already is no error. For those who have the right to it."""
    try:
        await connection.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
    except ApiError as error:
        if error.err_code != _MESSAGE_NOT_FOUND:
            raise


async def delete_streams(connection: Connection, subjects: Subjects) -> None:
    """Deletes everything of the namespace, for ever. For tests."""
    stored = (await connection.api("STREAM.NAMES", {"subject": subjects.stored_everything})).get("streams") or []
    await asyncio.gather(*(_delete_stream(connection, name) for name in (*subjects.stream_names, *stored)))


async def _create_stream(connection: Connection, config: Config) -> bool:
    """False if the stream exists with other settings. Creating it again with the same settings changes nothing."""
    try:
        await _created(connection, config)
    except ApiError as error:
        if error.err_code == _STREAM_DIFFERS:
            return False
        if not _is_dispensable(config):
            raise
        logger.warning("the engine does without stream %s: %s", config["name"], error.description)
    return True


async def _created(connection: Connection, config: Config) -> None:
    """Where the last streams of an account are just deleted, the server removes the directory of all: it is tried again."""
    for times in range(1, _STORE_TIMES + 1):
        try:
            await connection.api(f"STREAM.CREATE.{config['name']}", config)
        except ApiError as error:
            if error.err_code != _NO_STORE or times == _STORE_TIMES:
                raise
            await asyncio.sleep(_STORE_AGAIN_S)
        else:
            return


def _is_dispensable(config: Config) -> bool:
    return _short_name(config) in DISPENSABLE


def _short_name(config: Config) -> str:
    """The one of `STREAMS`."""
    return str(config["name"]).rpartition("_")[2]


async def _grow_stream(connection: Connection, wanted: Config) -> None:
    """Add what an earlier version did not give it; all else stays as it is. If that is refused, it is told as a difference."""
    name = wanted["name"]
    found = (await connection.api(f"STREAM.INFO.{name}"))["config"]
    subjects = [*found.get("subjects", []), *(one for one in wanted["subjects"] if one not in found.get("subjects", []))]
    grown = found | {"subjects": subjects} | {key: wanted[key] for key in _GROWN[_short_name(wanted)]}
    if grown == found:
        return
    try:
        await connection.api(f"STREAM.UPDATE.{name}", grown)
    except ApiError as error:
        logger.warning("stream %s cannot be given what this version needs: %s", name, error.description)
    else:
        logger.info("stream %s was made by an earlier version, and is given what this one needs", name)


async def _create_consumer(connection: Connection, consumer: Consumer) -> bool:
    """False if the consumer exists with other settings. `action: create` is what keeps the server from updating it."""
    name, subject = consumer.config["name"], consumer.config["filter_subject"]
    body = {"stream_name": consumer.stream, "action": "create", "config": consumer.config}
    try:
        await connection.api(f"CONSUMER.CREATE.{consumer.stream}.{name}.{subject}", body)
    except ApiError as error:
        if error.err_code != _CONSUMER_DIFFERS:
            raise
        return False
    return True


async def _delete_stream(connection: Connection, name: str) -> None:
    try:
        await connection.api(f"STREAM.DELETE.{name}")
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise


# Comparing -----------------------------------------------------------------------------------------------------------


async def drift(connection: Connection, subjects: Subjects, *, replicas: int = 1) -> list[str]:
    """One line for every setting that differs from what esexec needs, and for what is missing; empty if all is well."""
    of_streams = [_stream_drift(connection, config) for config in stream_configs(subjects, replicas)]
    of_consumers = [_consumer_drift(connection, consumer) for consumer in executor_consumers(subjects)]
    found = await asyncio.gather(*of_streams, *of_consumers)
    return [line for lines in found for line in lines]


async def _stream_drift(connection: Connection, wanted: Config) -> list[str]:
    what = f"stream {wanted['name']}"
    try:
        answer = await connection.api(f"STREAM.INFO.{wanted['name']}")
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return [f"{what} is missing"]
    if _is_dispensable(wanted):
        wanted = {key: value for key, value in wanted.items() if key != "max_bytes"}  # how much is kept is the operator's choice
    return _differences(what, wanted, answer["config"])


async def _consumer_drift(connection: Connection, consumer: Consumer) -> list[str]:
    what = f"consumer {consumer.config['name']} of stream {consumer.stream}"
    try:
        answer = await connection.api(f"CONSUMER.INFO.{consumer.stream}.{consumer.config['name']}")
    except ApiError as error:
        if error.err_code not in (STREAM_NOT_FOUND, _CONSUMER_NOT_FOUND):
            raise
        return [f"{what} is missing"]
    return _differences(what, consumer.config, answer["config"])


_DANGEROUS: Final[Mapping[str, Any]] = {
    "allow_msg_schedules": False,
    "allow_rollup_hdrs": False,
    "sealed": False,
    "max_msg_size": -1,
}
"""Settings that no stream of ours names, but that would lose or refuse messages if somebody set them."""


def _differences(what: str, wanted: Config, found: Config) -> list[str]:
    # The server shows what it leaves out as false or absent.
    lines = []
    for key in _compared(wanted):
        is_, should = found.get(key), wanted.get(key, _DANGEROUS.get(key))
        if (is_ or None) != (should or None):
            lines.append(f"{what}: {key} is {is_!r} and should be {should!r}")
    return lines


def _compared(wanted: Config) -> Iterable[str]:
    yield from wanted
    if "ack_policy" not in wanted:
        # Schedules bring rollups with them.
        tolerated = {"allow_rollup_hdrs"} if "allow_msg_schedules" in wanted else set()
        yield from sorted(_DANGEROUS.keys() - wanted.keys() - tolerated)


async def _all_names(connection: Connection, subject: str, key: str) -> list[str]:
    names: list[str] = []
    while True:
        answer = await connection.api(subject, {"offset": len(names)})
        page = answer.get(key) or []
        names += page
        if not page or len(names) >= answer["total"]:
            return names

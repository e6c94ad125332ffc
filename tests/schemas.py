"""Real messages, against the JSON Schemas that are published of them.

Beyond the schemas no field may stand there that they do not name: what is published as the protocol is to be all of it.
"""

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from esexec.protocol import CHANNELS, Channel, schemas

_FORMATS = FormatChecker(["date-time"])


def channel_of(subject: str) -> Channel:
    """The channel that a subject is of."""
    found = [channel for channel in CHANNELS if channel.holds(subject)]
    assert len(found) == 1, f"{subject} is of {len(found)} channels: {[one.name for one in found]}"
    return found[0]


def problems(name: str, document: Any) -> list[str]:
    """What is wrong with a message of this name; empty if nothing is."""
    return [f"{error.json_path}: {error.message}"[:500] for error in _validator(name).iter_errors(document)]


def problems_of(channel: Channel, data: bytes) -> list[str]:
    """What is wrong with a message of a channel, as any of the kinds that it may be; empty if it is one of them."""
    tried: dict[str, list[str]] = {}
    for message in channel.messages:
        if message.kind is Any:
            return []
        if message.kind is None:
            tried[message.name] = [f"{data!r} is not empty"] if data else []
        else:
            tried[message.name] = problems(message.name, json.loads(data))
        if not tried[message.name]:
            return []
    return [f"{channel.name}: {data[:2000]!r} is no {name}: {wrong}" for name, wrong in tried.items()]


@cache
def _registry() -> Registry:  # type: ignore[type-arg]
    return Registry().with_resource("all", Resource(_strict(schemas()), DRAFT202012))


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"all#/$defs/{name}"}, registry=_registry(), format_checker=_FORMATS)


def _strict(part: Any) -> Any:
    if isinstance(part, list):
        return [_strict(one) for one in part]
    if not isinstance(part, dict):
        return part
    made = {key: _strict(value) for key, value in part.items() if key != "$id"}
    if part.get("type") == "object" and "properties" in part:
        made.setdefault("additionalProperties", False)
    return made

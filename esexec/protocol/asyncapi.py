"""The protocol as an AsyncAPI 3 document: channels are subjects, and the application that is described is esexec itself.

So `receive` is what clients and workers publish, and `send` what they are told. Which stream keeps what is published on a channel
stands in `x-jetstream-stream`.
"""

from typing import Any, Final

from esexec.nats.subjects import Subjects
from esexec.protocol.catalog import CHANNELS, PARAMETERS, Channel, Message
from esexec.protocol.schemas import definitions, messages

VERSION: Final = "3.0.0"
_SCHEMAS: Final = "#/components/schemas/"
_ABOUT: Final = (
    "Clients, executors, workers and projections exchange nothing but NATS messages. All bodies are JSON, names snake_case, "
    "times RFC 3339 with an offset, durations integers with `_ms`; fields that have their default may be left out. What is "
    "described here is the engine: it receives what clients and workers publish."
)


def asyncapi(version: str) -> dict[str, Any]:
    """The document, for this version of esexec."""
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "esexec",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": "nats"}, {"name": "jetstream"}],
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "A NATS server with JetStream, 2.12 or newer."}
        },
        "channels": {one.name: _channel(one) for one in CHANNELS},
        "operations": {one.name: _operation(one) for one in CHANNELS if one.address is not None},
        "components": {
            "messages": {one.name: _message(one) for channel in CHANNELS for one in channel.messages},
            "parameters": {name: {"description": about} for name, about in PARAMETERS.items()},
            "schemas": definitions(_SCHEMAS),
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    made: dict[str, Any] = {
        "address": channel.address,
        "description": channel.about,
        "messages": {one.name: {"$ref": f"#/components/messages/{one.name}"} for one in channel.messages},
    }
    if channel.parameters:
        made["parameters"] = {name: {"$ref": f"#/components/parameters/{name}"} for name in channel.parameters}
    if channel.stream is not None:
        made["x-jetstream-stream"] = Subjects("NS").stream(channel.stream).replace("_NS_", "_{namespace}_")
    return made


def _operation(channel: Channel) -> dict[str, Any]:
    made: dict[str, Any] = {"action": channel.action, "channel": {"$ref": f"#/channels/{channel.name}"}, "summary": channel.about}
    if channel.answered_on is not None:
        made["reply"] = {"channel": {"$ref": f"#/channels/{channel.answered_on}"}}
    return made


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"name": message.name, "title": message.name, "summary": message.summary}
    if message.name in messages():
        made["payload"] = {"$ref": f"{_SCHEMAS}{message.name}"}
    elif message.kind is None:
        made["payload"] = {"type": "string", "maxLength": 0, "description": "No body."}
        made["contentType"] = "application/octet-stream"
    else:
        made["contentType"] = "application/octet-stream"
    if message.headers:
        properties = {name: {"type": "string", "description": about} for name, about in message.headers.items()}
        made["headers"] = {"type": "object", "properties": properties}
    return made

"""All that is published in a namespace while a test runs, each message held against the schemas."""

from collections.abc import Iterator
from typing import NamedTuple

from esexec.nats.connection import Connection, Msg
from tests.schemas import check


class Heard(NamedTuple):
    channel: str
    subject: str
    data: bytes


class Told:
    """What was heard; `None` of it may be something else than the protocol says."""

    def __init__(self) -> None:
        self.messages: list[Heard] = []
        self._wrong: list[str] = []

    async def listen(self, connection: Connection, namespace: str) -> "Told":
        await connection.subscribe(f"esexec.{namespace}.>", self._on_message)
        await connection.client.flush()
        return self

    async def _on_message(self, message: Msg) -> None:
        try:
            channel = check(message.subject, message.data)
        except AssertionError as error:
            self._wrong.append(str(error))
        else:
            self.messages.append(Heard(channel.name, message.subject, message.data))

    def of(self, channel: str) -> Iterator[bytes]:
        return (one.data for one in self.messages if one.channel == channel)

    @property
    def channels(self) -> set[str]:
        return {one.channel for one in self.messages}

    def verify(self) -> None:
        """Fails where a message was none of the protocol's."""
        assert not self._wrong, "\n\n".join(self._wrong[:5])
        assert self.messages

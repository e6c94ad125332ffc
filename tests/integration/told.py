"""All that is published in a namespace while a test runs, each message held against the schemas."""

from collections.abc import Iterator
from typing import NamedTuple

from esexec.nats.connection import Connection, Msg
from esexec.protocol import Channel
from tests.schemas import channel_of, problems_of


class Heard(NamedTuple):
    channel: Channel
    data: bytes


class Told:
    """What was heard; it is held against the schemas at the end, for that takes longer than hearing it."""

    def __init__(self) -> None:
        self.messages: list[Heard] = []
        self._strays: list[str] = []

    async def listen(self, connection: Connection, namespace: str) -> "Told":
        await connection.subscribe(f"esexec.{namespace}.>", self._on_message)
        await connection.client.flush()
        return self

    async def _on_message(self, message: Msg) -> None:
        try:
            self.messages.append(Heard(channel_of(message.subject), message.data))
        except AssertionError as error:
            self._strays.append(str(error))

    def of(self, channel: str) -> Iterator[bytes]:
        return (one.data for one in self.messages if one.channel.name == channel)

    @property
    def channels(self) -> set[str]:
        return {one.channel.name for one in self.messages}

    def forget(self) -> None:
        """What was published so far was none of the protocol's, as a test wanted it."""
        self._strays.clear()
        self.messages.clear()

    def verify(self) -> None:
        """Fails where a message was none of the protocol's."""
        wrong = [*self._strays]
        once = {(one.channel.messages[0].name, one.data): one.channel for one in self.messages}  # commits come twice
        for (_, data), channel in once.items():
            wrong += problems_of(channel, data)
        assert not wrong, "\n\n".join(wrong[:5])

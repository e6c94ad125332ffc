"""A program in any language: publishes bytes on subjects and reads answers; knows nothing of esexec but its protocol."""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

from esexec.domain.messages import Answer
from esexec.nats.connection import Connection, Msg
from esexec.nats.streams import lane_names
from esexec.world import new_id
from tests.integration.engine import Engine, until


class RawClient:
    """`answers` are all that were heard in the namespace."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self.engine, self.connection = engine, connection
        self.answers: list[Answer] = []

    async def listen(self) -> "RawClient":
        await self.connection.subscribe(f"esexec.{self.engine.namespace}.reply.*.*", self._heard)
        return self

    async def _heard(self, message: Msg) -> None:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.answers.append(msgspec.json.decode(message.data, type=Answer))

    async def say(self, execution_id: str, verb: str, **body: Any) -> str:
        body.setdefault("id", new_id())
        await self.connection.publish(f"esexec.{self.engine.namespace}.cmd.{execution_id}.{verb}", msgspec.json.encode(body))
        return str(body["id"])

    async def answer_to(self, command_id: str) -> Answer:
        return await until(lambda: next((one for one in self.answers if one.command_id == command_id), None))

    async def ask(self, execution_id: str, verb: str, **body: Any) -> Answer:
        return await self.answer_to(await self.say(execution_id, verb, **body))

    async def pull(self, queue: str = "default", priority: int = 5) -> Msg:
        """Take one dispatch from a lane, as a worker in another language would."""

        async def is_there() -> bool:
            return (queue, priority) in await lane_names(self.connection, self.engine.subjects)

        await until(is_there)
        arrived: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        async def on_message(message: Msg) -> None:
            if message.reply and not arrived.done():
                arrived.set_result(message)

        inbox = self.connection.client.new_inbox()
        subscription = await self.connection.subscribe(inbox, on_message)
        lane = f"$JS.API.CONSUMER.MSG.NEXT.{self.engine.subjects.tasks_stream}.{queue}_p{priority}"
        await self.connection.publish(lane, b'{"batch":1,"expires":5000000000}', reply=inbox)
        message = await asyncio.wait_for(arrived, 5)
        await subscription.unsubscribe()
        return message

    async def report(self, execution_id: str, step: str, attempt: str = "1-1", *, queue: str = "default", data: Any) -> None:
        """Publish a report: bytes as they are, anything else as JSON."""
        body = data if isinstance(data, bytes) else msgspec.json.encode(data)
        await self.connection.publish(f"esexec.{self.engine.namespace}.in.{execution_id}.report.{queue}.{step}.{attempt}", body)

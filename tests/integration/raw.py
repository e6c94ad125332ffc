"""A program in any language: publishes bytes on subjects and reads answers; knows nothing of esexec but its protocol."""

from typing import Any

import msgspec

from esexec.domain.messages import Answer
from esexec.nats.connection import Connection, Msg
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
        self.answers.append(msgspec.json.decode(message.data, type=Answer))

    async def say(self, execution_id: str, verb: str, **body: Any) -> str:
        body.setdefault("id", new_id())
        await self.connection.publish(f"esexec.{self.engine.namespace}.cmd.{execution_id}.{verb}", msgspec.json.encode(body))
        return str(body["id"])

    async def answer_to(self, command_id: str) -> Answer:
        return await until(lambda: next((one for one in self.answers if one.command_id == command_id), None))

    async def ask(self, execution_id: str, verb: str, **body: Any) -> Answer:
        return await self.answer_to(await self.say(execution_id, verb, **body))

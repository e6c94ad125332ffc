"""Commands as bare NATS messages, with ids of their own, so that afterwards the log can be asked which were carried out."""

import asyncio
import json
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg


class Wishes:
    """Who wishes. `answered`: command → its execution and whether it took effect, as the checker wants it."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self.answered: dict[str, tuple[str, bool]] = {}
        self.said: list[str] = []
        """What was said and what came of it, as `pause accepted`; for humans."""
        self.unanswered = 0

    @classmethod
    async def begin(cls, url: str, namespace: str) -> "Wishes":
        client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        wishes = cls(client, namespace)
        await client.subscribe(f"esexec.{namespace}.reply.*.*", cb=wishes._heard)
        return wishes

    async def _heard(self, message: Msg) -> None:
        answer = json.loads(message.data)
        waiting = self._waiting.get(answer["command_id"])
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def say(self, execution_id: str, verb: str, *, patience_s: float = 12.0, **body: Any) -> dict[str, Any] | None:
        """The answer; None if none came, or the server did not store the command: then it may or may not be carried out."""
        self._number += 1
        command = f"wish-{self._number}"
        data = json.dumps({"id": command, **body}).encode()
        waiting = self._waiting[command] = asyncio.get_running_loop().create_future()
        try:
            await self._client.request(f"esexec.{self._namespace}.cmd.{execution_id}.{verb}", data, timeout=5)
            answer = await asyncio.wait_for(waiting, patience_s)
        except (nats.errors.Error, TimeoutError):
            self.unanswered += 1
            return None
        finally:
            del self._waiting[command]
        effective = answer["status"] == "accepted" and answer.get("effective", True)
        self.answered[command] = (execution_id, effective)
        code = answer.get("error", {}).get("code", "")
        self.said.append(f"{verb} {'effective' if effective else code or answer['status']}")
        return answer

    async def close(self) -> None:
        await self._client.close()

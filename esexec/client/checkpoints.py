"""Checkpoints: states of an execution that have a name. They stand in its history; nothing else is kept of them.

A checkpoint's id is `<execution>.<version>`, the version being that of the event that made it.
"""

import builtins
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from esexec.client.commands import checked_id
from esexec.client.handle import Handle
from esexec.domain import commands as c
from esexec.domain.checkpoints import StateView, view_of
from esexec.domain.commit import Commit, hash_of
from esexec.domain.errors import NotFound, Refused, ValidationError
from esexec.domain.events import CheckpointBy, CheckpointCreated, CheckpointFailed
from esexec.domain.evolve import begin, evolve, fold
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.port import Stored
from esexec.world import new_id

if TYPE_CHECKING:
    from esexec.client.client import Client


class Checkpoint(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True):
    """A checkpoint. `state`: what the execution had reached; None in a list.

    `n`, `position`, `hash`: the commit that made it, where that stands in the log, and the SHA-256 of its stored bytes.
    `version`: of the event that made it. `by`: whether a command, the interval or the end of a task did.
    """

    id: str
    execution_id: str
    timestamp: datetime
    n: int
    version: int
    position: int
    hash: str
    by: CheckpointBy
    metadata: dict[str, Any] = {}
    state: StateView | None = None


class Checkpoints:
    """`client.checkpoints`: making, reading and restoring them."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def create(self, execution_id: str, metadata: dict[str, Any] | None = None) -> Checkpoint:
        """Give the state of now a name.

        Raises `NotFound`, or `Refused` (`ended`, `ending`, `rolling_back`, `too_many_checkpoints`, `checkpoint_failed`).
        """
        command = c.CreateCheckpoint(id=new_id(), metadata=metadata or {}, actor=self._client.owner)
        await self._client._tell(execution_id, "checkpoint", command)
        history = await self._client._log.load(execution_id)
        made = next((commit for commit in _commits(history) if any(cause.id == command.id for cause in commit.commands)), None)
        if made is not None:
            metadata = msgspec.json.decode(msgspec.json.encode(command.metadata))
            for event in made.events:
                # Whoever asked for the same in the same moment may be given the same one.
                if isinstance(event, CheckpointCreated) and event.by == "command" and event.metadata == metadata:
                    return _checkpoint(history, event.checkpoint_id)
            for event in made.events:
                if isinstance(event, CheckpointFailed) and event.by == "command":
                    raise Refused(event.message, code="checkpoint_failed")
        raise Refused(f"no checkpoint of {execution_id} was made", code="checkpoint_failed")

    async def list(self, execution_id: str) -> builtins.list[Checkpoint]:
        """All checkpoints of an execution, oldest first, without their states. Raises `NotFound`."""
        history = await self._client._log.load(checked_id(execution_id))
        if not history:
            raise NotFound(f"no execution {execution_id} is known", hint="check the id and the namespace")
        return [checkpoint for checkpoint, _ in _checkpoints(history)]

    async def get(self, checkpoint_id: str) -> Checkpoint:
        """A checkpoint with its state. Raises `NotFound` (`unknown_checkpoint`)."""
        execution_id, _ = parts_of(checkpoint_id)
        return _checkpoint(await self._client._log.load(execution_id), checkpoint_id)

    async def restore(self, checkpoint_id: str, reason: str = "") -> Handle:
        """Go back to a checkpoint: what completed after it runs again, and is not undone before. Nothing is deleted.

        Raises `NotFound`, or `Refused` (`unknown_checkpoint`, `not_started`, `ending`, `rolling_back`).
        """
        execution_id, _ = parts_of(checkpoint_id)
        command = c.RestoreCheckpoint(id=new_id(), checkpoint_id=checkpoint_id, reason=reason, actor=self._client.owner)
        await self._client._tell(execution_id, "restore", command)
        return Handle(self._client, execution_id)


def parts_of(checkpoint_id: str) -> tuple[str, int]:
    """The execution and the version that a checkpoint's id names. Raises `ValidationError` (`bad_checkpoint_id`)."""
    execution_id, _, version = str(checkpoint_id).rpartition(".")
    if not (execution_id and version.isascii() and version.isdecimal() and len(version) < 19):
        raise ValidationError(
            f"{str(checkpoint_id)[:100]!r} is no checkpoint's id",
            code="bad_checkpoint_id",
            hint="the execution's id, a dot, a number; list the checkpoints of the execution to see their ids",
        )
    return checked_id(execution_id), int(version)


def _commits(history: list[Stored]) -> Iterator[Commit]:
    return (codec.commit_of(stored) for stored in reversed(history))


def _checkpoints(history: list[Stored]) -> Iterator[tuple[Checkpoint, Commit]]:
    for stored in history:
        commit = codec.commit_of(stored)
        for version, event in enumerate(commit.events, commit.version):
            if isinstance(event, CheckpointCreated):
                checkpoint = Checkpoint(
                    id=event.checkpoint_id,
                    execution_id=commit.execution_id,
                    timestamp=commit.time,
                    n=stored.n,
                    version=version,
                    position=stored.position,
                    hash=hash_of(stored.data),
                    by=event.by,
                    metadata=event.metadata,
                )
                yield checkpoint, commit


def _checkpoint(history: list[Stored], checkpoint_id: str) -> Checkpoint:
    """The checkpoint with its state: the fold of all that was before it."""
    for checkpoint, commit in _checkpoints(history):
        if checkpoint.id == checkpoint_id:
            before = (codec.commit_of(stored) for stored in history[: commit.n - 1])
            state = fold(commit.execution_id, before, ExecutionState(commit.execution_id))
            begin(state, commit.n, commit.time)
            for event in commit.events[: checkpoint.version - commit.version]:
                evolve(state, event)
            return msgspec.structs.replace(checkpoint, state=view_of(state))
    raise NotFound(
        f"there is no checkpoint {checkpoint_id}",
        code="unknown_checkpoint",
        hint="list the checkpoints of the execution to see their ids",
    )

"""What clients and others hear of what they asked an entity that executions share."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from esexec.domain import commands as c
from esexec.domain.messages import Answer
from esexec.domain.sharing import requests as s
from esexec.domain.sharing.decide import Verdict
from esexec.domain.sharing.state import SharedState
from esexec.executor.envelope import Asked, Envelope


def answer_to(command: c.AnyCommand, envelope: Envelope, **fields: Any) -> Answer:
    """With these fields."""
    return Answer(command_id=command.id, execution_id=envelope.entity, **fields)


def answer_of(command: c.AnyCommand, envelope: Envelope, verdict: Verdict, state: SharedState) -> Answer | None:
    """What a client hears of its command; of an `allocate` only what its request does not tell. None: nothing."""
    if verdict.kind == "refused":
        return answer_to(command, envelope, status="refused", effective=False, error=verdict.error)
    if isinstance(command, c.AllocateResources):
        gone = verdict.kind == "known" and not state.knows(command.id)
        return answer_to(command, envelope, status="accepted", effective=False) if gone else None
    if not command.confirm and verdict.effective:
        return None
    grant = state.held.get(command.allocation) if isinstance(command, c.RenewResources) else None
    until = None if grant is None else grant.until
    return answer_to(command, envelope, status="accepted", effective=verdict.effective, until=until)


def answer_to_client(entity: str, command_id: str, answer: s.Answer, until: datetime | None) -> Answer:
    """What a client hears of its `allocate`."""
    of_client = partial(Answer, command_id=command_id, execution_id=entity)
    match answer:
        case s.Granted():
            return of_client(status="accepted", resources=answer.resources, until=until)
        case s.Waiting():
            return of_client(status="accepted", waiting=True)
        case s.Denied():
            return of_client(status="refused", effective=False, error=answer.error)


def misdirected(batch: Iterable[tuple[Envelope, Verdict]]) -> Iterator[tuple[str, s.Denied]]:
    """Who asked for what the entity does not decide upon, and what it is told."""
    for envelope, verdict in batch:
        content: Any = envelope.content
        if verdict.kind == "denied" and verdict.error is not None and isinstance(content, Asked):
            yield content.request_id, s.Denied(entity=envelope.entity, gate=s.gate_of(content.acquire.ask), error=verdict.error)

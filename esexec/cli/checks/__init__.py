"""What `esexec doctor` looks at: each check is a function from the patient to findings. Nothing here changes anything."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from esexec.cli.call import Server
from esexec.domain.messages import WorkerPresence
from esexec.nats.connection import Connection
from esexec.nats.presence import Kind, Present
from esexec.nats.subjects import Subjects

State = Literal["ok", "warning", "problem"]


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found. `name`: of what was looked at; several findings may have one name. `hint`: the way out."""

    name: str
    state: State
    message: str
    hint: str | None = None


@dataclass
class Patient:
    """A namespace on a server. `advised`: how a command that leads there begins. `there`: the executors and projections that
    answer, `workers`: the workers that do."""

    connection: Connection
    subjects: Subjects
    server: Server
    advised: str
    monitoring: str | None = None
    there: dict[Kind, list[Present]] = field(default_factory=dict)
    workers: list[WorkerPresence] = field(default_factory=list)
    unnamed_workers: bool = False
    """Whether somebody takes attempts who does not answer who it is: it may not be allowed to, or is of an older version."""


def ok(name: str, message: str) -> Check:
    return Check(name=name, state="ok", message=message)


def warning(name: str, message: str, hint: str | None = None) -> Check:
    return Check(name=name, state="warning", message=message, hint=hint)


def problem(name: str, message: str, hint: str | None = None) -> Check:
    return Check(name=name, state="problem", message=message, hint=hint)

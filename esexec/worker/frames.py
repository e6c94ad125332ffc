"""What a worker and the processes of its handlers say to each other: frames over a pipe, in JSON; nothing is pickled.

To the process: a job, `stop`, the answer to a before-image. From it: that the handler began or could not, what it tells live, a
before-image, what it has measured, and how it ended.
"""

import struct
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from esexec.domain.errors import ErrorInfo
from esexec.domain.measures import Measured
from esexec.domain.messages import Dispatch

SIZE: Final = struct.Struct("!I")


class Place(msgspec.Struct, frozen=True, tag_field="type", tag="place"):
    """Where a process finds a task: in a module (`__main__`: the program), under a name. `file`: of the module, if it has one."""

    module: str
    name: str
    file: str | None = None


class Job(msgspec.Struct, frozen=True, tag_field="type", tag="job"):
    """Carry out this attempt."""

    number: int
    place: Place
    dispatch: Dispatch
    worker: str


class Stop(msgspec.Struct, frozen=True, tag_field="type", tag="stop"):
    """The attempt of this job is to stop."""

    number: int


class ImageStands(msgspec.Struct, frozen=True, tag_field="type", tag="image_stands"):
    """The before-image that stands; `stopped`: there is none, for the attempt is to stop."""

    number: int
    image: Any = None
    stopped: bool = False


class Began(msgspec.Struct, frozen=True, tag_field="type", tag="began"):
    """The handler began, at `started_at`."""

    started_at: datetime


class CannotBegin(msgspec.Struct, frozen=True, tag_field="type", tag="cannot_begin"):
    """The task is not found, or its params do not fit; with `final` that will not change."""

    error: ErrorInfo
    final: bool = True


class Live(msgspec.Struct, frozen=True, tag_field="type", tag="live"):
    """A log line, or progress."""

    kind: Literal["log", "progress"]
    data: msgspec.Raw


class KeepImage(msgspec.Struct, frozen=True, tag_field="type", tag="keep_image"):
    """A before-image, which is to be in the history before anything is changed."""

    number: int
    image: msgspec.Raw


class HasMeasured(msgspec.Struct, frozen=True, tag_field="type", tag="has_measured"):
    """What it has measured so far; told when it is to stop."""

    measured: Measured


class Ended(msgspec.Struct, frozen=True, tag_field="type", tag="ended"):
    """The handler is over, and this is its report; `error`: of one that raised."""

    report: msgspec.Raw
    error: ErrorInfo | None = None
    bare: bool = True
    """Whether it left nothing but its output: no variables, no before-image, no directive."""


class EndedAsTold(msgspec.Struct, frozen=True, tag_field="type", tag="ended_as_told"):
    """The handler is over because it was told to stop."""


ToProcess = Job | Stop | ImageStands
FromProcess = Began | CannotBegin | Live | KeepImage | HasMeasured | Ended | EndedAsTold

_encode = msgspec.json.encode
read_job = msgspec.json.Decoder(ToProcess).decode
read_news = msgspec.json.Decoder(FromProcess).decode


def framed(message: ToProcess | FromProcess) -> bytes:
    """The message, with its size before it."""
    data = _encode(message)
    return SIZE.pack(len(data)) + data

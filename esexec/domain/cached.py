"""Results that may serve for other attempts: what is kept of one, and what a report says of where its output is from."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from esexec.domain import limits

_Id = Annotated[str, Meta(min_length=1, max_length=limits.id_chars)]
_Time = Annotated[datetime, Meta(tz=True)]


class CachedResult(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """An output as it is kept on `cache.<key>`: of which task, and the execution and step whose handler returned it, at `time`.

    `quality`: what that handler said of it.
    """

    task: str
    output: Any = None
    execution_id: _Id
    step: _Id
    time: _Time
    worker: str = ""
    quality: Annotated[float, Meta(ge=0, le=1)] | None = None


class CachedFrom(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a cached output is from: the execution and step whose handler returned it, and when. `key`: what it was found by."""

    key: Annotated[str, Meta(min_length=1, max_length=128)]
    execution_id: _Id
    step: _Id
    time: _Time

"""What came of something, as a value: what a handler may return, and what a caller may match on."""

from typing import Any

import msgspec

from esexec.domain.errors import EsexecError


class Ok(msgspec.Struct, frozen=True):
    """It completed, with this value. `directive`: what the handler said beside its output, for whoever reads the result."""

    value: Any = None
    directive: Any = None


class Err(msgspec.Struct, frozen=True):
    """It ended otherwise, with this error. `directive`: what a handler says beside it; of a result see `error.directive`."""

    error: EsexecError
    directive: Any = None

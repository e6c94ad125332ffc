"""What came of something, as a value: what a handler may return, and what a caller may match on."""

from typing import TYPE_CHECKING, Any, Generic

import msgspec

from esexec.domain.errors import EsexecError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")
"""What a task returns, where it is known."""


class Ok(msgspec.Struct, Generic[T], frozen=True, repr_omit_defaults=True):
    """It completed, with this value. `directive`: what the handler said beside its output, for whoever reads the result."""

    value: T = None  # type: ignore[assignment]
    directive: Any = None


class Err(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """It ended otherwise, with this error. `directive`: what a handler says beside it; of a result see `error.directive`."""

    error: EsexecError
    directive: Any = None

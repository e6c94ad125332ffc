"""What is answered between two links of a chain: go on, or halt. A handler returns it, or a function of the client's program."""

from typing import Any, Literal

import msgspec

from esexec.domain.errors import EsexecError, ExecutionError
from esexec.results import Err


class Halt(msgspec.Struct, frozen=True):
    """The chain ends here, with this value: completed. `Halt(Err("User blocked"))`: it fails, with this error."""

    value: Any = None
    halt: Literal[True] = True

    def __post_init__(self) -> None:
        if isinstance(self.value, Err) and not isinstance(self.value.error, EsexecError):
            error = ExecutionError(str(self.value.error), code="halted", retry=False)
            msgspec.structs.force_setattr(self, "value", Err(error))

    @property
    def error(self) -> EsexecError | None:
        """What the chain is to fail with; None: it completes."""
        return self.value.error if isinstance(self.value, Err) else None


class Continue(msgspec.Struct, frozen=True):
    """The chain goes on, with this value as what the next link gets."""

    value: Any
    halt: Literal[False] = False

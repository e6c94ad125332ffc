"""The variables of an execution, as one attempt sees them and changes them."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain.errors import ExecutionError
from esexec.tasks.outputs import VARIABLE, encode_value, not_serializable, too_large


class Variables(MutableMapping[str, Any]):
    """A mapping of JSON values that remembers what was changed. Only that travels on, when the attempt ends.

    A list or a dict may also be changed in place. Nothing can be removed: set it to None. What cannot be kept is refused where it
    is set, by an `ExecutionError`: `vars_not_serializable`, `vars_too_large` (all together), `vars_too_deep`.
    """

    __slots__ = ("_changed", "_looked_at", "_sizes", "_values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self._changed: set[str] = set()
        self._looked_at: dict[str, bytes] = {}
        """What was given out and could be changed in place: its JSON as it was then."""
        self._sizes: dict[str, int] = {}
        """Bytes of each variable's JSON; empty until one is set."""

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        if isinstance(value, dict | list) and name not in self._looked_at:
            self._looked_at[name] = encode_value(value, VARIABLE)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise not_serializable(VARIABLE, f"its name {name!r} is no string", "give a string as name")
        self._check_room(name, _size(name, encode_value(value, VARIABLE)))
        self._values[name] = value
        self._changed.add(name)

    def __delitem__(self, name: str) -> None:
        raise ExecutionError("a variable cannot be removed", code="vars_not_removable", retry=False, hint="set it to None")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Variables({self._values!r})"

    def changes(self) -> dict[str, msgspec.Raw]:
        """What was set, or changed in place, as JSON. Raises ExecutionError as setting does."""
        news: dict[str, msgspec.Raw] = {}
        for name in self._changed | self._looked_at.keys():
            data = encode_value(self._values[name], VARIABLE)
            if name in self._changed or data != self._looked_at[name]:
                self._check_room(name, _size(name, data))
                news[name] = msgspec.Raw(data)
        return news

    def _check_room(self, name: str, size: int) -> None:
        if not self._sizes:
            self._sizes = {name: _size(name, encode_value(value, VARIABLE)) for name, value in self._values.items()}
        together = sum(self._sizes.values()) - self._sizes.get(name, 0) + size + 1
        if together > limits.vars_bytes:
            raise too_large(VARIABLE, together, "execution's variables, all together,")
        self._sizes[name] = size


def _size(name: str, value: bytes) -> int:
    """With its name, a colon, and a comma or bracket."""
    return len(encode_value(name, VARIABLE)) + len(value) + 2

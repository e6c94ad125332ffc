"""Large values, which travel and are kept outside of commands and commits: what stands in their place, how they are looked into.

An object is the JSON of one value (a plan, an input, an output, params), found by the SHA-256 of its bytes. The core never
reads one: where it needs what is within, it says so (`ObjectNeeded`), and whoever calls it fetches the object and asks again.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.explain import shown


class ObjectRef(msgspec.Struct, frozen=True, gc=False):
    """A value that is kept as an object. `sha256`: of its bytes, in hexadecimal, which is its name; `bytes`: how many."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    bytes: Annotated[int, Meta(ge=1, le=limits.object_bytes)]


class ObjectPart(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What a dispatch leaves out because it is in an object. `at`: where it belongs in the dispatch, key by key, as
    `["params", "rows"]`. `path`: where it stands within the object's value; empty: it is all of it."""

    at: tuple[str | int, ...]
    sha256: str
    bytes: int
    path: tuple[str | int, ...] = ()

    @property
    def ref(self) -> ObjectRef:
        return ObjectRef(self.sha256, self.bytes)


class Pointer(msgspec.Struct, frozen=True, gc=False):
    """Stands among resolved params for what is in an object. `text`: the reference, as it was written."""

    ref: ObjectRef
    path: tuple[str | int, ...]
    text: str


class ObjectNeeded(Exception):
    """What is asked for cannot be told without this object: ask again with it."""

    def __init__(self, ref: ObjectRef) -> None:
        super().__init__(f"the object {ref.sha256} is needed")
        self.ref = ref


Opened = Mapping[str, Any]
"""The values of objects, by their hash: nobody changes them."""
UNOPENED: Opened = {}


def opened(ref: ObjectRef, objects: Opened, path: tuple[str | int, ...] = ()) -> Any:
    """What is in an object, along a path. Raises ObjectNeeded, ValidationError (`reference_unresolved`)."""
    if ref.sha256 not in objects:
        raise ObjectNeeded(ref)
    return within(objects[ref.sha256], path)


def within(value: Any, path: tuple[str | int, ...]) -> Any:
    """What a path leads to. Raises ValidationError (`reference_unresolved`)."""
    for depth, key in enumerate(path):
        if not (
            isinstance(value, dict) and key in value if isinstance(key, str) else isinstance(value, list) and key < len(value)
        ):
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in path[: depth + 1])
            raise ValidationError(f"there is no `{where}` in the object", code="reference_unresolved")
        value = value[key]
    return value


Parts = tuple[Any, tuple[ObjectPart, ...]]


def parted(value: Any, at: tuple[str | int, ...]) -> Parts:
    """`value` with None in the place of each `Pointer`, and what belongs there. Nothing that is shared is changed."""
    found: list[ObjectPart] = []
    return _parted(value, at, found.append), tuple(found)


def _parted(value: Any, at: tuple[str | int, ...], found: Callable[[ObjectPart], None]) -> Any:
    # No deeper than the params of a step, whose depth was checked.
    if isinstance(value, Pointer):
        found(ObjectPart(at=at, sha256=value.ref.sha256, bytes=value.ref.bytes, path=value.path))
        return None
    if isinstance(value, dict):
        return {key: _parted(item, (*at, key), found) for key, item in value.items()}
    if isinstance(value, list):
        return [_parted(item, (*at, index), found) for index, item in enumerate(value)]
    return value


def put_in(value: Any, at: tuple[str | int, ...], part: Any) -> Any:
    """`value` with `part` at that place; what is on the way is copied. Raises Lookup-, Type- or ValueError if there is none."""
    if not at:
        return part
    key = at[0]
    if isinstance(value, dict):
        return {**value, key: put_in(value.get(key), at[1:], part)}
    items: list[Any] = list(value)
    items[int(key)] = put_in(items[int(key)], at[1:], part)
    return items

"""Parts of an object: what a row of a large input costs, and that it is its own."""

import time
from collections.abc import Awaitable
from typing import Any, cast

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from esexec.domain.errors import ValidationError
from esexec.domain.objects import ObjectRef, within
from esexec.nats.objects import Objects, ref_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=3),
    max_leaves=8,
)
PATHS = st.lists(st.integers(0, 2) | st.sampled_from(["a", "b", "0"]), max_size=3).map(tuple)


class Kept(Objects):
    """An object store that has one object."""

    def __init__(self, value: Any) -> None:
        super().__init__(cast(Any, None), cast(Any, None), cast(Any, None))
        self.data = msgspec.json.encode(value)
        self.ref = ref_of(self.data)

    async def _read(self, ref: ObjectRef) -> bytes:
        return self.data


@given(JSON, PATHS)
async def test_a_part_is_what_stands_there(value: Any, path: tuple[str | int, ...]) -> None:
    """The same as from the whole value, or the same refusal."""
    objects = Kept(value)
    assert await told(objects.part(objects.ref, path)) == await told(whole(value, path))


async def whole(value: Any, path: tuple[str | int, ...]) -> Any:
    return within(value, path)


async def told(asked: Awaitable[Any]) -> Any:
    """The value, or why there is none."""
    try:
        return await asked
    except ValidationError as error:
        return error.code, error.message


async def test_each_of_many_rows_costs_what_it_is() -> None:
    """A map over thousands of rows reads each once, not all of them for each; what one handler changes no other sees."""
    objects = Kept([{"n": number, "text": "x" * 500} for number in range(10_000)])
    begun = time.process_time()
    for number in range(10_000):
        row = await objects.part(objects.ref, (number,))
        assert row["n"] == number
        row["n"] = None
    assert (await objects.part(objects.ref, (7, "n"))) == 7
    assert time.process_time() - begun < 10

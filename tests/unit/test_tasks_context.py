"""What a handler gets from its context, and leaves there: variables, before-images, keys and deadlines."""

import asyncio
import contextvars
import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from esexec.domain import limits
from esexec.domain.errors import ExecutionError
from esexec.domain.messages import Dispatch
from esexec.tasks import Context, current_context
from esexec.tasks.context import make_current

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def context(started_at: datetime | None = None, **fields: Any) -> Context:
    return Context(Dispatch(execution_id="e", step="s", task="t", **fields), started_at)


def changed(ctx: Context) -> dict[str, Any]:
    return {name: msgspec.json.decode(data) for name, data in ctx.changed_vars().items()}


def failure(call: Any) -> ExecutionError:
    with pytest.raises(ExecutionError) as caught:
        call()
    assert caught.value.info.retryable is False
    return caught.value


# What the attempt is for ---------------------------------------------------------------------------------------------------


def test_the_idempotency_key_tells_the_purposes_apart() -> None:
    """All attempts of one purpose in a run have one key; what undoes the step must not be taken for the step."""
    keys = {purpose: context(purpose=purpose, run=2).idempotency_key for purpose in ("task", "fallback", "compensation")}
    assert keys == {"task": "e/s/2", "fallback": "e/s/2/fallback", "compensation": "e/s/2/undo"}
    assert context(attempt=1).idempotency_key == context(attempt=7).idempotency_key
    assert context(purpose="recovery").idempotency_key == "e/s/1/recovery"


def test_a_compensation_knows_the_output_that_it_undoes() -> None:
    """`output` is that of the step; `purpose` tells a handler that serves for both what it is called for."""
    ctx = context(purpose="compensation", output={"id": 7}, before={"name": "old"})
    assert (ctx.purpose, ctx.output, ctx.before_image, ctx.has_before_image) == ("compensation", {"id": 7}, {"name": "old"}, True)
    assert (context().purpose, context().output) == ("task", None)


def test_the_deadline_is_the_earlier_one() -> None:
    """Of the attempt's timeout and the execution's deadline; each may be missing."""
    soon, late = NOW + timedelta(seconds=1), NOW + timedelta(hours=1)
    assert context(NOW, timeout_ms=5_000).deadline == NOW + timedelta(seconds=5)
    assert context(NOW, timeout_ms=5_000, deadline=soon).deadline == soon
    assert context(NOW, timeout_ms=5_000, deadline=late).deadline == NOW + timedelta(seconds=5)
    assert context(NOW, timeout_ms=0, deadline=late).deadline == late
    assert context(NOW, timeout_ms=0).deadline is None
    assert context(NOW, deadline=late).execution_deadline == late


async def test_code_within_a_handler_finds_its_context() -> None:
    """`current_context` is that of the attempt, in what a handler starts and in its threads; outside there is none."""
    ctx = context()
    seen: list[Context | None] = []

    async def handler() -> None:
        make_current(ctx)
        seen.append(await asyncio.create_task(look()))
        seen.append(await asyncio.to_thread(current_context))

    async def look() -> Context | None:
        return current_context()

    await asyncio.create_task(handler())
    threading.Thread(target=contextvars.Context().run, args=(lambda: seen.append(current_context()),)).start()
    assert seen == [ctx, ctx, None]
    assert current_context() is None


# Variables -----------------------------------------------------------------------------------------------------------------


def test_only_changed_variables_travel() -> None:
    """What was read stays behind; what was set goes along, also if it is set to what it was."""
    ctx = context(vars={"a": 1, "b": 2, "c": 3})
    assert ctx.vars["a"] == 1
    ctx.vars["b"] = 2
    ctx.vars.update(d=[4])
    assert changed(ctx) == {"b": 2, "d": [4]}
    assert dict(ctx.vars) == {"a": 1, "b": 2, "c": 3, "d": [4]}
    assert len(ctx.vars) == 4


def test_who_does_not_look_at_the_variables_changes_none() -> None:
    """A handler that does not use them reports none, and its dispatch is never touched."""
    ctx = context(vars={"a": [1]})
    assert changed(ctx) == {}
    assert dict(ctx.vars) == {"a": [1]}
    assert changed(ctx) == {}


def test_a_list_or_a_dict_may_be_changed_in_place() -> None:
    """What was changed within a variable, before or after it was set, is not lost."""
    ctx = context(vars={"seen": [1], "table": {"a": {"n": 1}}, "other": [2]})
    ctx.vars["seen"].append(2)
    ctx.vars["table"]["a"]["n"] = 5
    assert ctx.vars["other"] == [2]
    mine = ctx.vars["mine"] = []
    mine.append("late")
    assert changed(ctx) == {"seen": [1, 2], "table": {"a": {"n": 5}}, "mine": ["late"]}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("a", object(), "vars_not_serializable"),
        ("a", math.nan, "vars_not_serializable"),
        ("a", "\ud800", "vars_not_serializable"),
        ("\ud800", 1, "vars_not_serializable"),
        (7, 1, "vars_not_serializable"),
        ("a", "x" * limits.vars_bytes, "vars_too_large"),
    ],
)
def test_what_cannot_be_kept_is_refused_where_it_is_set(name: Any, value: Any, code: str) -> None:
    """The handler's own line fails, for good, and nothing was set."""
    ctx = context(vars={"a": 1})
    error = failure(lambda: ctx.vars.__setitem__(name, value))
    assert (error.code, dict(ctx.vars), changed(ctx)) == (code, {"a": 1}, {})


def test_all_variables_together_have_a_limit() -> None:
    """Of exactly that many bytes of JSON they are kept, with one more they are not; setting one again makes room."""
    ctx = context(vars={"a": "x" * 30_000})
    rest = limits.vars_bytes - len(msgspec.json.encode({"a": "x" * 30_000, "b": ""}))
    assert failure(lambda: ctx.vars.update(b="y" * (rest + 1))).code == "vars_too_large"
    ctx.vars["b"] = "y" * rest
    assert len(msgspec.json.encode(dict(ctx.vars))) == limits.vars_bytes
    assert failure(lambda: ctx.vars.update(c=1)).code == "vars_too_large"
    ctx.vars["b"] = ""
    ctx.vars["c"] = 1
    assert set(changed(ctx)) == {"b", "c"}


def test_what_grew_too_large_in_place_is_found_at_the_end() -> None:
    """A variable that was changed after it was set is looked at again."""
    ctx = context()
    mine = ctx.vars["mine"] = []
    mine.append("x" * limits.vars_bytes)
    assert failure(ctx.changed_vars).code == "vars_too_large"
    mine[:] = [object()]
    assert failure(ctx.changed_vars).code == "vars_not_serializable"


def test_a_variable_cannot_be_removed() -> None:
    """Nothing that was set disappears; None says that there is nothing."""
    ctx = context(vars={"a": 1})
    assert failure(lambda: ctx.vars.pop("a")).code == "vars_not_removable"
    with pytest.raises(KeyError):
        ctx.vars["b"]


# Before-images -------------------------------------------------------------------------------------------------------------


class Keeper:
    """Stands for the worker: an image is in the history already."""

    def __init__(self, stands: Any) -> None:
        self.stands, self.got = stands, list[bytes]()

    async def keep(self, data: bytes) -> Any:
        self.got.append(data)
        return self.stands

    def keep_in_thread(self, data: bytes) -> Any:
        self.got.append(data)
        return self.stands


async def test_the_image_that_stands_is_given_back() -> None:
    """The first image of the step, not this one; asked again it is not sent again."""
    keeper = Keeper({"n": 0})
    ctx = Context(Dispatch(execution_id="e", step="s", task="t"), None, keeper)
    assert (ctx.before_image, ctx.has_before_image) == (None, False)
    assert await ctx.before({"n": 1, "at": NOW}) == {"n": 0}
    assert await ctx.before({"n": 2}) == {"n": 0}
    assert ctx.before_sync({"n": 3}) == {"n": 0}
    assert keeper.got == [b'{"n":1,"at":"2026-01-02T00:00:00Z"}']
    assert (ctx.before_image, ctx.has_before_image) == ({"n": 0}, True)


async def test_an_image_that_came_with_the_dispatch_is_given_at_once() -> None:
    """A re-run hears of it without asking; None is an image too."""
    keeper = Keeper(1)
    ctx = Context(Dispatch(execution_id="e", step="s", task="t", before=None), None, keeper)
    assert await ctx.before({"n": 1}) is None
    assert (ctx.before_image, ctx.has_before_image, keeper.got) == (None, True, [])


async def test_without_a_worker_the_first_image_stands_too() -> None:
    """In a test of a handler the context keeps it itself, in the form that it would come back in."""
    ctx = context()
    assert ctx.before_sync((1, NOW)) == [1, "2026-01-02T00:00:00Z"]
    assert await ctx.before(2) == [1, "2026-01-02T00:00:00Z"]


@pytest.mark.parametrize(
    ("image", "code"),
    [(object(), "image_not_serializable"), (math.inf, "image_not_serializable"), ("x" * limits.image_bytes, "image_too_large")],
)
async def test_an_image_that_cannot_be_kept_fails_the_handler_before_it_changes_anything(image: Any, code: str) -> None:
    """For good, and nothing is sent."""
    keeper = Keeper(1)
    ctx = Context(Dispatch(execution_id="e", step="s", task="t"), None, keeper)
    assert failure(lambda: ctx.before_sync(image)).code == code
    with pytest.raises(ExecutionError, match=code):
        await ctx.before(image)
    assert keeper.got == []


async def test_what_undoes_a_step_records_no_image() -> None:
    """A task that also undoes another may say what was before; nothing is put back after an undoing, so nothing is sent."""
    keeper = Keeper(1)
    ctx = Context(Dispatch(execution_id="e", step="s", task="t", purpose="compensation"), None, keeper)
    assert await ctx.before({"docks": 4}) == {"docks": 4}
    assert keeper.got == []
    assert failure(lambda: context(purpose="recovery").before_sync(1)).code == "before_not_here"

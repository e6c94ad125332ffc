"""What a handler measures: taken along by the report, or refused where it is given."""

from decimal import Decimal
from typing import Any

import pytest

from esexec.domain import limits
from esexec.domain.errors import ExecutionError
from esexec.domain.measures import Measured, Metric
from esexec.domain.messages import Dispatch
from esexec.tasks import Context


@pytest.fixture
def ctx() -> Context:
    return Context(Dispatch(execution_id="e", step="s", task="t"))


def test_a_metric_is_a_number_or_several_under_a_name(ctx: Context) -> None:
    """A number alone is called `value`; tags tell metrics of one name apart, and are texts."""
    ctx.metric("rows", 12)
    ctx.metric("custom_metric", duration=1.2, size=3, tags={"kind": "a", "user_id": 7, "new": True})
    ctx.metric("named", name=1, value=Decimal("2.5"))
    assert ctx.measured == Measured(
        metrics=(
            Metric(name="rows", values={"value": 12}),
            Metric(name="custom_metric", values={"duration": 1.2, "size": 3}, tags={"kind": "a", "user_id": "7", "new": "True"}),
            Metric(name="named", values={"name": 1, "value": 2.5}),
        )
    )


def test_costs_add_up_and_the_last_quality_counts(ctx: Context) -> None:
    """Within an attempt as over all of them."""
    ctx.cost(0.5)
    ctx.cost(Decimal("0.25"))
    ctx.quality(0.1)
    ctx.quality(1)
    assert ctx.measured == Measured(quality=1.0, cost=0.75)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda ctx: ctx.metric("a"), "invalid_metric"),
        (lambda ctx: ctx.metric("a", "12"), "invalid_metric"),
        (lambda ctx: ctx.metric("a", True), "invalid_metric"),
        (lambda ctx: ctx.metric("a", None), "invalid_metric"),
        (lambda ctx: ctx.metric("a", float("nan")), "invalid_metric"),
        (lambda ctx: ctx.metric("a", float("-inf")), "invalid_metric"),
        (lambda ctx: ctx.metric("", 1), "invalid_metric"),
        (lambda ctx: ctx.metric(7, 1), "invalid_metric"),
        (lambda ctx: ctx.metric("a" * (limits.metric_name_chars + 1), 1), "invalid_metric"),
        (lambda ctx: ctx.metric("a", 1, tags={"t": "x" * (limits.metric_tag_chars + 1)}), "invalid_metric"),
        (lambda ctx: ctx.metric("a", 1, tags={"t": ["x"]}), "invalid_metric"),
        (lambda ctx: ctx.metric("a", 1, tags={7: "x"}), "invalid_metric"),
        (lambda ctx: ctx.metric("a", **{f"v{n}": n for n in range(limits.metric_parts + 1)}), "invalid_metric"),
        (lambda ctx: ctx.metric("\ud800", 1), "invalid_metric"),
        (lambda ctx: ctx.quality(1.01), "invalid_quality"),
        (lambda ctx: ctx.quality(-0.01), "invalid_quality"),
        (lambda ctx: ctx.quality(float("nan")), "invalid_quality"),
        (lambda ctx: ctx.quality("good"), "invalid_quality"),
        (lambda ctx: ctx.cost(-1), "invalid_cost"),
        (lambda ctx: ctx.cost(float("inf")), "invalid_cost"),
        (lambda ctx: ctx.cost(2 * limits.cost_max), "invalid_cost"),
        (lambda ctx: ctx.cost(None), "invalid_cost"),
    ],
)
def test_a_bad_value_is_refused_where_it_is_given(ctx: Context, call: Any, code: str) -> None:
    """With a code of its own, for good, and nothing of it is kept."""
    with pytest.raises(ExecutionError) as refused:
        call(ctx)
    assert (refused.value.code, refused.value.info.retryable) == (code, False)
    assert refused.value.hint
    assert ctx.measured is None


def test_metrics_are_bounded(ctx: Context) -> None:
    """Not more than so many, and not more than so large all together."""
    for _ in range(limits.metrics_per_attempt):
        ctx.metric("a", 1)
    with pytest.raises(ExecutionError) as refused:
        ctx.metric("a", 1)
    assert refused.value.code == "metrics_too_large"
    other = Context(Dispatch(execution_id="e", step="s", task="t"))
    large = {f"t{number}": "x" * limits.metric_tag_chars for number in range(limits.metric_parts)}
    other.metric("a", 1, tags=large)
    with pytest.raises(ExecutionError) as refused:
        other.metric("a", 1, tags=large)
    assert refused.value.code == "metrics_too_large"

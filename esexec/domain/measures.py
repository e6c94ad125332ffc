"""What an attempt measured of itself: metrics, the quality of its output, what it cost.

Bounds are part of the types, so that what a foreign worker sends is checked as it is read.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from esexec.domain import limits

Number = int | float
Cost = Annotated[float, Meta(ge=0, le=limits.cost_max)]
_Name = Annotated[str, Meta(min_length=1, max_length=limits.metric_name_chars)]
_Tag = Annotated[str, Meta(max_length=limits.metric_tag_chars)]


class Metric(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """Numbers under a name. A single one without a name of its own is `value`. `tags`: what they are to be told apart by."""

    name: _Name
    values: Annotated[dict[_Name, Number], Meta(min_length=1, max_length=limits.metric_parts)]
    tags: Annotated[dict[_Name, _Tag], Meta(max_length=limits.metric_parts)] = {}


class Measured(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """What was measured. `quality`: of the output, 0 to 1, None if nothing was said. `cost`: in whatever unit the user counts."""

    quality: Annotated[float, Meta(ge=0, le=1)] | None = None
    cost: Cost = 0.0
    metrics: Annotated[tuple[Metric, ...], Meta(max_length=limits.metrics_per_attempt)] = ()


def cost_of(news: Measured) -> Measured:
    """Of what undoing a step measured, what counts for the step: the quality is that of the step's own output."""
    return Measured(cost=news.cost)


def after(before: Measured | None, news: Measured | None) -> Measured | None:
    """What is known of a step after a further attempt: costs add up, of quality and metrics the last that were said count."""
    if news is None or before is None:
        return before if news is None else news
    return Measured(
        quality=before.quality if news.quality is None else news.quality,
        cost=min(before.cost + news.cost, limits.cost_max),
        metrics=news.metrics or before.metrics,
    )

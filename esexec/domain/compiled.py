"""Plans, decoded and checked once: what a start or a history holds as bytes → `Graph`, remembered by those bytes.

A graph takes about fifteen times its plan's bytes, so large ones are remembered in a smaller number.
"""

from functools import lru_cache

import msgspec

from esexec.domain import limits
from esexec.domain.errors import PlanInvalid
from esexec.domain.graph import Graph, compile_plan
from esexec.domain.ids import is_task_name, token_from
from esexec.domain.plan import plan_of_task
from esexec.domain.reading import decode_plan

SMALL_BYTES = 4 * 1024

_graph_of_small = lru_cache(maxsize=limits.cached_plans)(decode_plan)
_graph_of_large = lru_cache(maxsize=limits.cached_large_plans)(decode_plan)
_graph_of_huge = lru_cache(maxsize=limits.cached_huge_plans)(decode_plan)


def graph_of(raw: bytes) -> Graph:
    """The checked graph of a plan's JSON. Raises `PlanInvalid`, which is not remembered."""
    if len(raw) <= SMALL_BYTES:
        return _graph_of_small(raw)
    return _graph_of_large(raw) if len(raw) <= limits.plan_bytes else _graph_of_huge(raw)


def forget_graphs() -> None:
    """Begin with nothing remembered."""
    _graph_of_small.cache_clear()
    _graph_of_large.cache_clear()
    _graph_of_huge.cache_clear()


@lru_cache(maxsize=limits.cached_plans)
def graph_of_task(task: str) -> Graph:
    """The graph of the one-step plan that a single task is."""
    if not is_task_name(task):
        raise PlanInvalid(f"{task[:100]!r} is no task name", code="bad_task_name", hint="letters, digits and _ . : / -")
    return compile_plan(plan_of_task(task, token_from(task)))


def canonical(graph: Graph) -> msgspec.Raw:
    """The plan as it is stored in an execution's first commit."""
    return msgspec.Raw(graph.raw)

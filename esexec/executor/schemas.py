"""Which announced schemas an executor judges by at all: whoever may announce may announce anything, and a loop stands still
while it judges.

A schema of a few hundred bytes can take years (`allOf` of two references to what is an `allOf` of two references to …), call for
others over the network, or repeat itself for ever. So what one costs is told before it is used, from its text; one that is too
costly, or of which that cannot be told, leaves the params to the worker.
"""

from typing import Any, NamedTuple

_WORK_MAX = 5_000
"""Most places of a schema, with each reference written out."""
_DEPTH_MAX = 100
_OF_A_PATTERN = 200
"""A pattern goes over a text more slowly than anything else does."""

_ONE = ("additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames")
_LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
_BY_NAME = ("properties", "patternProperties", "dependentSchemas")
_APART = frozenset({"properties", "prefixItems"})
"""Each of these looks at another value."""
_NEVER = frozenset(
    {
        "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary", "dependencies",
        "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
"""What changes whither references lead, or looks again at what was looked at."""
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Cost(NamedTuple):
    """`work`: places that are looked at, at most, for each value. `again`: how often it comes back to itself for the same one."""

    work: int
    again: int


class _CannotTell(Exception):
    """Or it is too much."""


def work_of(schema: dict[str, Any]) -> int | None:
    """How much is looked at for each value, at most; None: it is not to be judged by."""
    try:
        _check_words(schema)
        cost = _Costs(schema).of(schema, 0)
    except (_CannotTell, RecursionError):
        return None
    return cost.work if cost.again <= 1 else None


def _check_words(schema: dict[str, Any]) -> None:
    if schema.get("$schema", _DIALECT) != _DIALECT:
        raise _CannotTell
    left: list[Any] = [{key: value for key, value in schema.items() if key != "$schema"}]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if not _NEVER.isdisjoint(one) or "$schema" in one:
                raise _CannotTell
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)


class _Costs:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[str, _Cost | None] = {}
        """By reference; None: it is being told just now, so that it refers to itself."""

    def of(self, schema: Any, depth: int) -> _Cost:
        if isinstance(schema, bool):
            return _Cost(1, 0)
        if not isinstance(schema, dict) or depth > _DEPTH_MAX:
            raise _CannotTell
        listed = [value for word in ("enum", "required") if isinstance(value := schema.get(word), list)]
        by_pattern = schema.get("patternProperties")
        patterns = int("pattern" in schema) + (len(by_pattern) if isinstance(by_pattern, dict) else 0)
        parts = [self._within(schema, word, depth) for word in (*_ONE, *_LIST, *_BY_NAME) if word in schema]
        if "$ref" in schema:
            parts.append(self._referred(schema["$ref"], depth))
        work = 1 + len(schema) + sum(map(len, listed)) + _OF_A_PATTERN * patterns + sum(part.work for part in parts)
        if work > _WORK_MAX:
            raise _CannotTell
        return _Cost(work, sum(part.again for part in parts))

    def _within(self, schema: dict[str, Any], word: str, depth: int) -> _Cost:
        value = schema[word]
        if word in _ONE:
            return self.of(value, depth + 1)
        if not isinstance(value, dict if word in _BY_NAME else list):
            raise _CannotTell
        costs = [self.of(one, depth + 1) for one in (value.values() if isinstance(value, dict) else value)]
        again = [cost.again for cost in costs]
        return _Cost(sum(cost.work for cost in costs), max(again, default=0) if word in _APART else sum(again))

    def _referred(self, reference: Any, depth: int) -> _Cost:
        if not isinstance(reference, str):
            raise _CannotTell
        if reference not in self._known:
            self._known[reference] = None
            self._known[reference] = self.of(self._at(reference), depth + 1)
        cost = self._known[reference]
        return _Cost(1, 1) if cost is None else cost

    def _at(self, reference: str) -> Any:
        """What stands there, in this schema; of others nothing is known here."""
        root, *path = reference.split("/")
        found: Any = self._root
        if root != "#" or "%" in reference:
            raise _CannotTell
        for key in path:
            key = key.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise _CannotTell
            found = found[key]
        return found

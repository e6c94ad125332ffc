"""What cached results are found by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import esexec
from esexec import Cache
from esexec.domain.errors import ExecutionError, ValidationError


@dataclass
class Place:
    city: str
    code: int = 0


@esexec.task
def route(ctx: esexec.Context, start: Place, end: Place, speed: int = 50) -> None: ...


LYON, PARIS = {"city": "Lyon"}, {"city": "Paris", "code": 75}


def found_by(cache: Cache, task: str = "route", **params: Any) -> str:
    return cache.hash_of(task, params, lambda: route.bind(params))


def same(cache: Cache, one: dict[str, Any], other: dict[str, Any]) -> bool:
    return found_by(cache, **one) == found_by(cache, **other)


def test_without_a_key_all_params_count() -> None:
    """Whatever the order of their fields is."""
    cache = Cache()
    assert same(cache, {"start": LYON, "end": PARIS}, {"end": {"code": 75, "city": "Paris"}, "start": LYON})
    assert not same(cache, {"start": LYON, "end": PARIS}, {"start": PARIS, "end": LYON})
    assert not same(cache, {"start": LYON, "end": PARIS}, {"start": LYON, "end": PARIS, "speed": 50})


@pytest.mark.parametrize(
    "key",
    [
        ["start", "end"],
        ("start", "end"),
        lambda params: [params["start"], params["end"]],
        lambda start, end: (start, end),
        lambda **given: {"from": given["start"].city, "to": given["end"]},
    ],
    ids=["names", "a tuple of names", "of the params", "of parameters", "of all parameters"],
)
def test_a_key_leaves_out_what_does_not_matter(key: Any) -> None:
    """Names of params, or a function of them as they were given, or by name and converted."""
    cache = Cache(key)
    assert same(cache, {"start": LYON, "end": PARIS}, {"start": LYON, "end": PARIS, "speed": 90})
    assert not same(cache, {"start": LYON, "end": PARIS}, {"start": PARIS, "end": LYON})


def test_tasks_and_versions_have_results_of_their_own() -> None:
    """Another task, or another version, finds nothing of this one's."""
    hashes = {found_by(Cache(version=version), task, start=LYON) for version in ("", 2) for task in ("route", "other")}
    assert len(hashes) == 4
    assert all(len(one) == 64 for one in hashes)


@pytest.mark.parametrize(
    "key", [lambda params: object(), lambda params: float("nan"), lambda params: "\ud800"], ids=["object", "nan", "surrogate"]
)
def test_a_key_has_a_json_form(key: Callable[..., Any]) -> None:
    """What has none could not be told from others."""
    with pytest.raises(ExecutionError) as refused:
        found_by(Cache(key), start=LYON)
    assert (refused.value.code, refused.value.info.retryable) == ("invalid_cache_key", False)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Cache("city"), "invalid_cache"),
        (lambda: Cache([1]), "invalid_cache"),  # type: ignore[list-item]
        (lambda: Cache(7), "invalid_cache"),  # type: ignore[arg-type]
        (lambda: Cache(ttl="soon"), "invalid_duration"),
        (lambda: Cache(ttl=-1), "invalid_duration"),
    ],
)
def test_what_is_no_cache_is_refused_where_it_is_declared(make: Callable[[], Cache], code: str) -> None:
    """With a code and a hint."""
    with pytest.raises(ValidationError) as refused:
        make()
    assert refused.value.code == code
    assert refused.value.hint


# A key that fits its task ----------------------------------------------------------------------------------------------------


def of_city(city: str, unit: str = "C") -> str:
    return city


def of_anything(**params: str) -> str:
    return params["city"]


@pytest.mark.parametrize("key", [["citty"], ["city", "citty"], lambda citty: citty, lambda city, *more: city])
def test_a_key_that_names_no_parameter_is_refused(key: Any) -> None:
    """It would give one result to everybody, or fail every attempt: it is told when the task is made, and what was meant."""
    with pytest.raises(ValidationError) as refused:
        esexec.task(cache=Cache(key))(of_city)
    assert refused.value.code == "invalid_cache"
    assert "of_city" in refused.value.message
    assert "`city`" in str(refused.value.hint) or "known: city" in str(refused.value.hint)


def test_a_name_that_is_nearly_a_parameter_is_asked_about() -> None:
    """As everywhere: did you mean."""
    with pytest.raises(ValidationError, match="did you mean `city`"):
        esexec.task(cache=Cache(["citty"]))(of_city)


@pytest.mark.parametrize(
    "key", [["city"], ["city", "unit"], lambda city: city, lambda params: 1, lambda city, salt="x": city, lambda **all: 1]
)
def test_a_key_that_fits_is_taken(key: Any) -> None:
    """Names of parameters; what a function has a default for need not be one."""
    esexec.task(cache=Cache(key))(of_city)


@pytest.mark.parametrize("key", [["citty"], lambda citty: citty])
def test_a_task_that_takes_anything_takes_any_key(key: Any) -> None:
    """With `**params` every name can be a param."""
    esexec.task(cache=Cache(key))(of_anything)

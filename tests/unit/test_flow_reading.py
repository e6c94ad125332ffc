"""Rate limits, concurrency keys and resources as they are written: what is read, and what is refused and how."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from esexec import Key, Plan, PlanInvalid, RateLimit, ResourcePool, ResourceRequirement, Step, ValidationError
from esexec.domain import limits
from esexec.domain.flow import in_words
from esexec.domain.flow_reading import read_key, read_pool, read_rate_limit, read_requirements
from esexec.domain.graph import compile_plan
from esexec.domain.reading import decode_plan, read_change, read_config, read_plan, read_settings
from esexec.domain.settings import ExecutionConfig

TEN = RateLimit(10, 60_000)
GPU = ResourceRequirement("gpu", 2)
TASK = {"name": "p", "steps": [{"task": "t"}]}


def of_step(**fields: Any) -> Any:
    return read_plan({"name": "p", "steps": [{"task": "t", **fields}]}).steps[0]


def refusal(of_steps: Any = None, **fields: Any) -> ValidationError:
    """What a plan is refused with, by all ways in alike; `of_steps`: keys of its second step."""
    document = {"name": "p", "steps": [{"task": "t"}, {"task": "t", **(of_steps or {})}], **fields}
    with pytest.raises(PlanInvalid) as refused:
        compile_plan(read_plan(document))
    with pytest.raises(PlanInvalid) as on_the_wire:
        decode_plan(json.dumps(document).encode())
    assert on_the_wire.value.code == refused.value.code
    error = refused.value
    assert error.message.isprintable() and len(error.message) < 300
    return error


# What can be written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        (TEN, TEN),
        ({"max_executions": 10, "window_ms": 60_000}, TEN),
        ({"maxExecutions": 10, "windowMs": 60_000}, TEN),
        ({"max_executions": 10, "window": "1m"}, TEN),
        ({"max_executions": 10, "window": 60}, TEN),
        ({"max_executions": 10, "window": timedelta(minutes=1), "key": None, "on_limit": "wait"}, TEN),
        ({"maxExecutions": 1, "window": "1ms", "onLimit": "reject"}, RateLimit(1, 1, on_limit="reject")),
        ({"max_executions": 5, "window": "31d", "key": "mail/${params.to}"}, RateLimit(5, limits.window_ms, "mail/${params.to}")),
        ({"max_executions": 0}, RateLimit(0, 1)),
        ({"max_executions": 0, "window": "1m"}, RateLimit(0, 60_000)),
    ],
)
def test_a_rate_limit_has_its_aliases(written: Any, limit: RateLimit) -> None:
    """The object or a mapping, in camelCase too, the window with its unit: alike for steps, plans, configs and tasks."""
    assert of_step(rate_limit=written).rate_limit == limit
    assert of_step(rateLimit=written).rate_limit == limit
    assert read_settings({"rateLimit": written}).rate_limit == limit
    assert read_config({"rate_limit": written}).rate_limit == limit
    assert read_plan({**TASK, "rateLimit": written}).config.rate_limit == limit
    assert read_plan({**TASK, "config": {"rateLimit": written}}).config.rate_limit == limit
    assert read_change({"rate_limit": written}) == {"rate_limit": msgspec.to_builtins(limit)}
    assert Plan("p", [Step("t", rate_limit=written)]).spec.steps[0].rate_limit == limit


@pytest.mark.parametrize(
    ("written", "key"),
    [
        (Key("input.customer", limit=3), Key("input.customer", limit=3)),
        ({"key": "input.customer", "limit": 3}, Key("input.customer", limit=3)),
        ({"key": "nightly"}, Key("nightly", limit=1)),
        ({"key": "${context.a}/${input.b}", "total": 9, "scope": "all"}, Key("${context.a}/${input.b}", total=9, scope="all")),
        (Key.singleton("input.customer", "queue"), Key("input.customer")),
    ],
)
def test_a_key_has_its_forms(written: Any, key: Key) -> None:
    """Of steps and of executions it is written alike."""
    assert of_step(concurrency=written).concurrency == key
    assert read_plan({**TASK, "concurrency": written}).config.concurrency == key
    assert read_config({"concurrency": written}).concurrency == key


@pytest.mark.parametrize("policy", ["queue", "skip", "replace"])
def test_executions_have_policies(policy: Any) -> None:
    """What becomes of an execution for which there is no room."""
    assert read_config({"concurrency": Key.singleton("input.a", policy)}).concurrency == Key("input.a", policy=policy)


@pytest.mark.parametrize(
    ("written", "requirements"),
    [
        ([GPU], (GPU,)),
        ({"gpu": 2}, (GPU,)),
        ({"gpu": 2, "memory": 0.5}, (GPU, ResourceRequirement("memory", 0.5))),
        ({"gpu": {"amount": 2, "durationMs": 500}}, (ResourceRequirement("gpu", 2, 500),)),
        ([{"type": "gpu", "amount": 2, "duration": "1m"}], (ResourceRequirement("gpu", 2, 60_000),)),
        ([{"type": "gpu", "priority": 9}, GPU], (ResourceRequirement("gpu", priority=9), GPU)),
        (
            [{"type": "computational", "constraints": {"minMemory": 8, "gpuRequired": True, "region": ["eu", "us"]}}],
            (ResourceRequirement("computational", constraints={"minMemory": 8, "gpuRequired": True, "region": ["eu", "us"]}),),
        ),
        ([], ()),
        ({}, ()),
        (None, ()),
    ],
)
def test_requirements_have_a_short_form(written: Any, requirements: tuple[ResourceRequirement, ...]) -> None:
    """Objects, mappings, or amounts by type; names of constraints stay as they are given."""
    assert of_step(resources=written).resources == requirements


def test_nothing_said_is_nothing_said() -> None:
    """`null` leaves it to the other levels."""
    assert of_step(rate_limit=None, concurrency=None) == of_step()
    assert read_config({"rate_limit": None, "concurrency": None}) == ExecutionConfig()


def test_a_pool_is_read_alike() -> None:
    """An object or a mapping, in camelCase too; what is wrong is named."""
    pool = ResourcePool("big", "gpu", 4, cost_per_unit=0.5, attributes={"memory": 80})
    assert read_pool(pool) == pool
    assert read_pool({"id": "big", "type": "gpu", "capacity": 4, "costPerUnit": 0.5, "attributes": {"memory": 80}}) == pool
    for written, code in [
        ({"id": "big", "type": "gpu"}, "missing"),
        ({"id": "big", "type": "gpu", "capacity": 0}, "invalid_value"),
        ({"id": "b b", "type": "gpu", "capacity": 1}, "invalid_value"),
        ({"id": "big", "type": "gpu", "capacity": 1, "costs": 1}, "unknown_key"),
        ({"id": "big", "type": "gpu", "capacity": 1, "attributes": {"a": "x" * 4_090}}, "pool_too_large"),
        ({"id": "big", "type": "gpu", "capacity": 1, "attributes": {"a": "x" * 5_000}}, "too_large"),
        (3, "invalid_value"),
    ]:
        with pytest.raises(ValidationError) as refused:
            read_pool(written)
        assert refused.value.code == code


# What cannot be --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "code", "path"),
    [
        ({"rateLimit": 10}, "invalid_value", "rateLimit"),
        ({"rateLimit": {"maxExecutions": 10}}, "missing", "rateLimit.window_ms"),
        ({"rateLimit": {"window": "1m"}}, "missing", "rateLimit.max_executions"),
        ({"rateLimit": {"maxExecutions": -1, "window": "1m"}}, "invalid_value", "rateLimit.maxExecutions"),
        ({"rateLimit": {"maxExecutions": 1.5, "window": "1m"}}, "invalid_value", "rateLimit.maxExecutions"),
        ({"rateLimit": {"maxExecutions": True, "window": "1m"}}, "invalid_value", "rateLimit.maxExecutions"),
        ({"rateLimit": {"maxExecutions": limits.grants_per_window + 1, "window": 1}}, "invalid_value", "rateLimit.maxExecutions"),
        ({"rateLimit": {"maxExecutions": 1, "window": 0}}, "invalid_value", "rateLimit.window"),
        ({"rateLimit": {"maxExecutions": 1, "window": "32d"}}, "invalid_value", "rateLimit.window"),
        ({"rateLimit": {"maxExecutions": 1, "window": "soon"}}, "invalid_duration", "rateLimit.window"),
        ({"rateLimit": {"maxExecutions": 1, "window": 60_000}}, "ambiguous_duration", "rateLimit.window"),
        ({"rateLimit": {"maxExecutions": 1, "window": 1, "windowMs": 1}}, "said_twice", "rateLimit.windowMs"),
        ({"rateLimit": {"maxExecutions": 1, "window": 1, "onLimit": "drop"}}, "invalid_value", "rateLimit.onLimit"),
        ({"rateLimit": {"maxExecution": 1, "window": 1}}, "unknown_key", "rateLimit.maxExecution"),
        ({"rateLimit": {"maxExecutions": 1, "window": 1, "key": "${steps.a.output}"}}, "bad_key", "rateLimit.key"),
        ({"rateLimit": {"maxExecutions": 1, "window": 1, "key": "params.a"}}, "bad_key", "rateLimit.key"),
        ({"rateLimit": {"maxExecutions": 1, "window": 1, "key": "${"}}, "bad_reference", "rateLimit.key"),
        ({"rateLimit": {"maxExecutions": 1, "window": 1, "key": ""}}, "invalid_value", "rateLimit.key"),
        ({"rateLimit": {"maxExecutions": 1, "window": 1, "key": "x" * 5_000}}, "invalid_value", "rateLimit.key"),
        ({"concurrency": "input.a"}, "invalid_value", "concurrency"),
        ({"concurrency": {"limit": 1}}, "missing", "concurrency.key"),
        ({"concurrency": {"key": "input.a", "limit": 0}}, "invalid_value", "concurrency.limit"),
        ({"concurrency": {"key": "input.a", "total": 0}}, "invalid_value", "concurrency.total"),
        ({"concurrency": {"key": "input.a", "limits": 1}}, "unknown_key", "concurrency.limits"),
        ({"concurrency": {"key": "input.a", "policy": "drop"}}, "invalid_value", "concurrency.policy"),
        ({"concurrency": {"key": "input.a", "scope": "${input.b}"}}, "bad_key", "concurrency.scope"),
        ({"concurrency": {"key": "input..a"}}, "bad_reference", "concurrency.key"),
        ({"concurrency": {"key": "step.a"}}, "bad_key", "concurrency.key"),
    ],
)  # fmt: skip
def test_limits_and_keys_that_cannot_be(written: dict[str, Any], code: str, path: str) -> None:
    """Of a step and of a plan alike: the rule's code, the place as it was written, a hint wherever there is a way out."""
    for error, place in [
        (refusal(written), f"steps[1].{path}"),
        (refusal(config=written), f"config.{path}"),
        (refusal(**written), path),
    ]:
        assert (error.code, error.context["path"]) == (code, place)
        assert error.hint


@pytest.mark.parametrize(
    ("written", "code", "path"),
    [
        ("gpu", "invalid_value", "resources"),
        ([GPU.type], "invalid_value", "resources[0]"),
        ([{"amount": 2}], "missing", "resources[0].type"),
        ([{"type": "gpu"}, {"type": "g p u"}], "invalid_value", "resources[1].type"),
        ([{"type": "gpu\n"}], "invalid_value", "resources[0].type"),
        ([{"type": "x" * 65}], "invalid_value", "resources[0].type"),
        ([{"type": "gpu", "amount": 0}], "invalid_value", "resources[0].amount"),
        ([{"type": "gpu", "amount": -1}], "invalid_value", "resources[0].amount"),
        ([{"type": "gpu", "amount": 1e300}], "invalid_value", "resources[0].amount"),
        ([{"type": "gpu", "priority": 11}], "invalid_value", "resources[0].priority"),
        ([{"type": "gpu", "duration": "soon"}], "invalid_duration", "resources[0].duration"),
        ([{"type": "gpu", "constraint": {}}], "unknown_key", "resources[0].constraint"),
        ([{"type": "gpu", "constraints": 3}], "invalid_value", "resources[0].constraints"),
        ({"gpu": "2"}, "invalid_value", "resources.gpu"),
        ({"gpu": True}, "invalid_value", "resources.gpu"),
        ({"type": "gpu", "amount": 2}, "invalid_value", "resources.type"),
        ({"gpu": {"type": "gpu"}}, "said_twice", "resources.gpu"),
        ({"gpu": {"amuont": 2}}, "unknown_key", "resources.gpu.amuont"),
        ({"g p u": 1}, "invalid_value", "resources.g p u.type"),
        ([{"type": "gpu"}] * (limits.requirements + 1), "too_many_requirements", "resources"),
        ({f"r{n}": 1 for n in range(limits.requirements + 1)}, "too_many_requirements", "resources"),
        ([{"type": "gpu", "constraints": {"a": "x" * 4_090}}], "requirements_too_large", "resources"),
        ([{"type": f"r{n}", "constraints": {"a": "x" * 400}} for n in range(12)], "requirements_too_large", "resources"),
        ([{"type": "gpu", "constraints": {"a": "x" * 5_000}}], "too_large", "resources[0].constraints"),
    ],
)
def test_requirements_that_cannot_be(written: Any, code: str, path: str) -> None:
    """Bad numbers, names, fields, too many, too much: each with its code and its place."""
    error = refusal({"resources": written})
    assert (error.code, error.context["path"]) == (code, f"steps[1].{path}")
    assert error.hint


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"id": ""}, "A-Z a-z 0-9 _ . : / -"),
        ({"id": "a b"}, "A-Z a-z 0-9 _ . : / -"),
        ({"type": "a b"}, "A-Z a-z 0-9 _ . : / -"),
        ({"capacity": 0}, "more than 0"),
        ({"capacity": -1}, "more than 0"),
        ({"capacity": "two"}, "more than 0"),
        ({"cost_per_unit": -1}, "0 or more"),
        ({"costPerUnitSecond": -1}, "0 or more"),
        ({"attributes": [1]}, "names and values"),
        ({"attributes": {"a": [{"b": float("nan")}]}}, "infinity"),
        ({"attributes": {"a": float("inf")}}, "infinity"),
    ],
)
def test_pools_that_cannot_be(changed: dict[str, Any], words: str) -> None:
    """Each with a hint that says what can be; no message shows a regular expression."""
    with pytest.raises(ValidationError) as refused:
        read_pool({"id": "rack", "type": "gpu", "capacity": 1, **changed})
    assert words in (refused.value.hint or "")
    assert "regex" not in refused.value.message


def test_a_requirement_is_told_with_its_constraints() -> None:
    """Where no pool has so much they may be the reason: another pool has it."""
    assert in_words(GPU) == "2 gpu"
    assert in_words(ResourceRequirement("gpu", 0.5, constraints={"region": "us"})) == "0.5 gpu with {'region': 'us'}"


def test_what_must_be_above_0_is_not_told_of_0() -> None:
    """A window has no "none"; how a duration is written, or how long it can be, is said."""
    for window in (-3, "soon", 0):
        hint = refusal({"rateLimit": {"maxExecutions": 1, "windowMs": window}}).hint
        assert hint is not None
        assert "none" not in hint
        assert "0 or more" not in hint


def test_hints_help() -> None:
    """What was nearly right is suggested; words and ranges are named."""
    assert "max_executions" in (refusal({"rateLimit": {"max_execution": 1, "window": 1}}).hint or "")
    assert "reject" in (refusal({"rateLimit": {"maxExecutions": 1, "window": 1, "onLimit": "drop"}}).hint or "")
    assert "replace" in (refusal(concurrency={"key": "input.a", "policy": "drop"}).hint or "")
    assert "31 days" in (refusal({"rateLimit": {"maxExecutions": 1, "window": "32d"}}).hint or "")
    assert "${params.a}" in (refusal({"rateLimit": {"maxExecutions": 1, "window": 1, "key": "params.a"}}).hint or "")
    assert "list" in (refusal({"resources": {"type": "gpu", "amount": 2}}).hint or "")
    assert "limits.requirements" in (refusal({"resources": [{"type": "gpu"}] * 21}).hint or "")
    assert "steps and tasks" in (refusal(config={"resources": {"gpu": 1}}).hint or "")


def test_steps_have_no_policy() -> None:
    """A step can only wait its turn: `skip` and `replace` are for executions."""
    for policy in ("skip", "replace"):
        error = refusal({"concurrency": {"key": "input.a", "policy": policy}})
        assert (error.code, error.context["path"]) == ("policy_of_executions", "steps[1].concurrency.policy")
        with pytest.raises(ValidationError) as refused:
            read_key(Key("input.a", policy=policy), "concurrency", of="steps")
        assert refused.value.code == "policy_of_executions"


def test_executions_have_no_params() -> None:
    """The key of a plan, a start or a namespace is known before any step is; that of a step knows its params."""
    assert of_step(concurrency={"key": "params.user"}).concurrency == Key("params.user")
    for key in ("params.user", "${params.user}"):
        assert refusal(concurrency={"key": key}).code == "bad_key"
        for read in (read_config, read_change):
            with pytest.raises(ValidationError) as refused:
                read({"concurrency": {"key": key}})
            assert refused.value.code == "bad_key"


def test_constraints_are_bounded_json() -> None:
    """Deep ones, also on the wire in canonical form, and what JSON cannot hold, are refused."""
    deep: Any = 1
    for _ in range(limits.nesting_depth + 1):
        deep = [deep]
    assert refusal({"resources": [{"type": "gpu", "constraints": {"a": deep}}]}).code == "too_deep"
    with pytest.raises(PlanInvalid) as refused:
        compile_plan(
            read_plan({"name": "p", "steps": [{"task": "t", "resources": [{"type": "g", "constraints": {"a": object()}}]}]})
        )
    assert refused.value.code == "not_json"
    with pytest.raises(PlanInvalid) as refused:
        Plan("p", [Step("t", resources=[ResourceRequirement("g", constraints={"a": float("nan")})])])
    assert refused.value.code == "not_json"


def test_objects_are_checked_like_what_is_written() -> None:
    """A struct that nobody validated is not trusted."""
    for said in (RateLimit(-1, 5), RateLimit(1, 0), RateLimit(1, 1, key="${"), RateLimit("1", 1)):  # type: ignore[arg-type]
        with pytest.raises(ValidationError):
            read_rate_limit(said, "rate_limit")
    for requirement in (ResourceRequirement(""), ResourceRequirement("g", 0), ResourceRequirement("g", priority=11)):
        with pytest.raises(ValidationError):
            read_requirements([requirement], "resources")
    with pytest.raises(ValidationError) as refused:
        read_rate_limit(Key("input.a"), "rate_limit")
    assert refused.value.code == "invalid_value"

"""What people may write for a plan, and how the wire's bytes become a checked graph."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from esexec.domain import limits
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.domain.graph import compile_plan
from esexec.domain.plan import Plan, Step
from esexec.domain.reading import decode_plan, read_change, read_config, read_plan, read_settings
from esexec.domain.settings import EMPTY_CONFIG, PRESETS, ExecutionConfig, NamespaceConfig, QueueSettings, TaskSettings


def one_step(**fields: Any) -> Step:
    return read_plan({"name": "p", "steps": [{"task": "t", **fields}]}).steps[0]


def refusal(document: Any) -> PlanInvalid:
    with pytest.raises(PlanInvalid) as refused:
        read_plan(document)
    return refused.value


def step_refusal(**fields: Any) -> PlanInvalid:
    return refusal({"name": "p", "steps": [{"task": "ok"}, {"task": "t", **fields}]})


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ({"timeout": "30s"}, "timeout_ms", 30_000),
        ({"timeout": 30}, "timeout_ms", 30_000),
        ({"timeout_ms": 250}, "timeout_ms", 250),
        ({"timeoutMs": 250}, "timeout_ms", 250),
        ({"timeout": 0}, "timeout_ms", 0),
        ({"timeout": "0s"}, "timeout_ms", 0),
        ({"timeoutGrowth": 2}, "timeout_growth", 2.0),
        ({"queue_timeout": "1m"}, "queue_timeout_ms", 60_000),
        ({"queueTimeout": "1m"}, "queue_timeout_ms", 60_000),
        ({"queueTimeoutMs": 5}, "queue_timeout_ms", 5),
        ({"queue_timeout_ms": 0}, "queue_timeout_ms", 0),
        ({"maxRetries": 5}, "max_retries", 5),
        ({"max_retries": 0}, "max_retries", 0),
        ({"retryDelayMs": 2000}, "initial_retry_delay_ms", 2000),
        ({"retry_delay_ms": 2000}, "initial_retry_delay_ms", 2000),
        ({"retry_delay": "2s"}, "initial_retry_delay_ms", 2000),
        ({"retryDelay": 2}, "initial_retry_delay_ms", 2000),
        ({"initialRetryDelay": "2s"}, "initial_retry_delay_ms", 2000),
        ({"initial_retry_delay": "2s"}, "initial_retry_delay_ms", 2000),
        ({"initialRetryDelayMs": 5}, "initial_retry_delay_ms", 5),
        ({"max_retry_delay": "1m"}, "max_retry_delay_ms", 60_000),
        ({"maxRetryDelay": "1m"}, "max_retry_delay_ms", 60_000),
        ({"retry_backoff": 3}, "backoff_multiplier", 3.0),
        ({"backoffMultiplier": 1.5}, "backoff_multiplier", 1.5),
        ({"retry_jitter": 0.1}, "jitter", 0.1),
        ({"jitter": 0}, "jitter", 0.0),
        ({"retryUnknown": False}, "retry_unknown", False),
        ({"maxRetryAfter": "1h"}, "max_retry_after_ms", 3_600_000),
        ({"queue": "gpu"}, "queue", "gpu"),
        ({"priority": 10}, "priority", 10),
        ({"timeout": None}, "timeout_ms", None),
    ],
)
def test_every_setting_has_its_aliases(written: dict[str, Any], field: str, value: Any) -> None:
    """Aliases and camelCase mean one field; steps, plans, configs and task settings read them alike; null says nothing."""
    assert getattr(one_step(**written), field) == value
    assert getattr(read_settings(written), field) == value
    assert getattr(read_config(written), field) == value
    assert getattr(read_plan({"name": "p", "steps": [{"task": "t"}], **written}).config, field) == value
    assert getattr(read_plan({"name": "p", "steps": [{"task": "t"}], "config": written}).config, field) == value


def test_an_execution_has_settings_of_its_own() -> None:
    """`parallelExecutionLimit`, `continueOnError`, `enableRollback` belong to plans and configs, not to steps or tasks."""
    written = {"parallelExecutionLimit": 3, "continueOnError": True, "enableRollback": False}
    expected = ExecutionConfig(parallel_execution_limit=3, continue_on_error=True, enable_rollback=False)
    assert read_config(written) == expected
    assert read_plan({"name": "p", "steps": [{"task": "t"}], "config": written}).config == expected
    assert step_refusal(continueOnError=True).code == "unknown_key"
    with pytest.raises(ValidationError, match="unknown key"):
        read_settings(written)
    assert read_settings({}) == TaskSettings()


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ({"onMissingCompensation": "fail"}, "on_missing_compensation", "fail"),
        ({"on_missing_compensation": "skip"}, "on_missing_compensation", "skip"),
        ({"executionTimeout": "2h"}, "execution_timeout_ms", 7_200_000),
        ({"execution_timeout": 90}, "execution_timeout_ms", 90_000),
        ({"execution_timeout_ms": 90}, "execution_timeout_ms", 90),
        ({"executionTimeoutMs": 0}, "execution_timeout_ms", 0),
        ({"checkpointInterval": "5m"}, "checkpoint_interval_ms", 300_000),
        ({"checkpoint_interval": timedelta(seconds=1)}, "checkpoint_interval_ms", 1_000),
        ({"checkpoint_interval_ms": 250}, "checkpoint_interval_ms", 250),
        ({"checkpointIntervalMs": 0}, "checkpoint_interval_ms", 0),
        ({"checkpointEvery": "task"}, "checkpoint_every", "task"),
        ({"checkpoint_every": None}, "checkpoint_every", None),
    ],
)
def test_what_concerns_the_execution_as_a_whole_has_its_aliases(written: dict[str, Any], field: str, value: Any) -> None:
    """Settings of executions are read alike in configs and beside the steps of a plan; steps and tasks do not know them."""
    steps = [{"task": "t"}]
    assert getattr(read_config(written), field) == value
    assert getattr(read_plan({"name": "p", "steps": steps, **written}).config, field) == value
    assert getattr(read_plan({"name": "p", "steps": steps, "config": written}).config, field) == value
    assert step_refusal(**written).code == "unknown_key"
    with pytest.raises(ValidationError, match="unknown key"):
        read_settings(written)


def test_a_setting_with_few_values_names_them() -> None:
    """The hint lists the words that can be; a time under `checkpoint_every` is sent to `checkpoint_interval`."""
    plan = {"name": "p", "steps": [{"task": "t"}]}
    error = refusal({**plan, "config": {"onMissingCompensation": "stop"}})
    assert (error.code, error.context["path"]) == ("invalid_value", "config.onMissingCompensation")
    assert error.hint == 'one of "skip", "fail"'
    error = refusal({**plan, "checkpoint_every": "5m"})
    assert error.hint is not None
    assert "checkpoint_interval" in error.hint
    error = refusal({**plan, "checkpointEvery": "\x1b[2J" * 1_000})
    assert error.message.isprintable()
    assert len(error.message) < 200


# Presets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_settings_that_it_stands_for(name: str) -> None:
    """Wherever a config is read a preset is resolved: what is kept has the fields and not the name."""
    config = ExecutionConfig.preset(name)
    plan = {"name": "p", "steps": [{"task": "t"}]}
    assert read_config({"preset": name}) == config
    assert read_plan({**plan, "config": {"preset": name}}).config == config
    assert read_plan({**plan, "preset": name}).config == config
    assert b"preset" not in decode_plan(json.dumps({**plan, "preset": name}).encode()).raw


def test_what_is_said_beside_a_preset_wins() -> None:
    """By whichever name, in the config or beside it, before or after; null says nothing."""
    expected = ExecutionConfig(
        max_retries=7,
        initial_retry_delay_ms=1_000,
        continue_on_error=True,
        enable_rollback=False,
        parallel_execution_limit=10,
    )
    plan = {"name": "p", "steps": [{"task": "t"}]}
    assert read_config({"preset": "bulk", "maxRetries": 7}) == expected
    assert read_config({"maxRetries": 7, "retry_delay": None, "preset": "bulk"}) == expected
    assert read_config({"preset": "bulk", "retryDelay": "5s"}).initial_retry_delay_ms == 5_000
    assert read_plan({**plan, "config": {"preset": "bulk"}, "max_retries": 7}).config == expected
    assert read_plan({**plan, "config": {"max_retries": 7}, "preset": "bulk"}).config == expected
    assert read_plan({**plan, "config": ExecutionConfig(max_retries=7), "preset": "bulk"}).config == expected


@pytest.mark.parametrize("preset", ["bulky", "", "BULK", 3, ["bulk"], True, "x" * 10_000, "\x1b[2J"])
def test_an_unknown_preset_is_refused_with_the_known_ones(preset: Any) -> None:
    """`unknown_preset`, by its path, with the nearest name or all of them."""
    error = refusal({"name": "p", "steps": [{"task": "t"}], "config": {"preset": preset}})
    assert (error.code, error.context["path"]) == ("unknown_preset", "config.preset")
    assert error.hint is not None
    assert "bulk" in error.hint
    assert error.message.isprintable()
    assert len(error.message) < 200
    with pytest.raises(ValidationError) as refused:
        read_config({"preset": preset})
    assert refused.value.context["path"] == "preset"
    with pytest.raises(ValidationError):
        ExecutionConfig.preset(preset)


def test_a_preset_is_said_once_and_not_of_a_step() -> None:
    """`config.preset` and `preset` beside it are one thing said twice; steps and tasks have no presets."""
    document = {"name": "p", "steps": [{"task": "t"}], "config": {"preset": "bulk"}, "preset": "bulk"}
    assert refusal(document).code == "said_twice"
    assert step_refusal(preset="bulk").code == "unknown_key"
    with pytest.raises(ValidationError, match="unknown key"):
        read_settings({"preset": "bulk"})


def test_a_config_may_be_the_object() -> None:
    """An ExecutionConfig is taken where a mapping is, and checked like one."""
    assert read_config(ExecutionConfig.preset("critical")) == ExecutionConfig.preset("critical")
    assert read_config(ExecutionConfig()) is EMPTY_CONFIG
    for wrong in (ExecutionConfig(max_retries=-1), ExecutionConfig(jitter=object())):  # type: ignore[arg-type]
        with pytest.raises(ValidationError) as refused:
            read_config(wrong)
        assert refused.value.code == "invalid_value"


# Steps ---------------------------------------------------------------------------------------------------------------


def test_a_step_names_who_does_it_instead_and_who_undoes_it() -> None:
    """`fallback` and `compensate` are names of tasks."""
    step = one_step(fallback="b", compensate="undo.t")
    assert (step.fallback, step.compensate) == ("b", "undo.t")
    assert step_refusal(fallback=3).context["path"] == "steps[1].fallback"
    assert refusal({"name": "p", "steps": [{"task": "t"}], "fallback": "b"}).code == "unknown_key"


@pytest.mark.parametrize("key", ["task", "tool", "action"])
def test_a_step_calls_a_task_by_three_names(key: str) -> None:
    """`tool` and `action` are the task; `input` is the params; `dependsOn` the dependencies."""
    document = {"name": "p", "steps": [{key: "a"}, {key: "b", "input": {"x": 1}, "dependsOn": ["a"], "parallel": True}]}
    assert read_plan(document).steps[1] == Step(id="b", task="b", params={"x": 1}, depends_on=("a",), parallel=True)


def test_a_steps_id_defaults_to_its_task() -> None:
    """The id is the task's name made legal and unique, and never takes one that another step was given."""
    tasks: list[dict[str, Any]] = [{"task": "a.b"}, {"task": "a.b"}, {"task": "x", "id": "a_b_3"}, {"task": "a.b"}, {"task": "_"}]
    assert [step.id for step in read_plan({"name": "p", "steps": tasks}).steps] == ["a_b", "a_b_2", "a_b_3", "a_b_4", "step"]


def test_long_default_ids_stay_within_the_limit() -> None:
    """A number that makes an id unique takes the place of its last characters."""
    names = [step.id for step in read_plan({"name": "p", "steps": [{"task": "t" * 128}] * 12}).steps]
    assert len(set(names)) == 12
    assert {len(name) for name in names} == {limits.id_chars}


def test_long_names_that_end_differently_stay_cheap() -> None:
    """Thousands of names that are cut to the same one are numbered without trying every number for each."""
    tasks = [{"task": "t" * 59 + f"{n:05}"} for n in range(4_000)] * 2
    started = time.process_time()
    steps = read_plan({"name": "p", "steps": tasks}).steps
    assert time.process_time() - started < 2
    assert len({step.id for step in steps}) == 8_000


def test_messages_cannot_move_a_cursor() -> None:
    """Control characters and lone surrogates from outside are escaped in messages, and long words cut."""
    for word in ("\x1b[2J", "a\nb", "\ud800", "x" * 100_000):
        error = step_refusal(**{word: 1})
        assert error.message.isprintable()
        assert len(error.message) < 400


def test_dependencies_are_ids_or_positions() -> None:
    """A number is a position counted from 0; one dependency may stand without a list; a string is always an id."""
    steps = [{"task": "a"}, {"task": "b", "depends_on": [0]}, {"task": "c", "depends_on": 1}, {"task": "d", "depends_on": "a"}]
    assert [step.depends_on for step in read_plan({"name": "p", "steps": steps}).steps] == [(), ("a",), ("b",), ("a",)]


def test_values_that_are_not_json_become_json() -> None:
    """YAML's dates and number keys are stored as text."""
    step = one_step(params={"at": datetime(2026, 1, 2, tzinfo=UTC), 3: "x"})
    assert step.params == {"at": "2026-01-02T00:00:00Z", "3": "x"}


@pytest.mark.parametrize(
    ("fields", "code", "path"),
    [
        ({"maxRetrys": 1}, "unknown_key", "steps[1].maxRetrys"),
        ({3: 1}, "unknown_key", "steps[1].3"),
        ({"timeout": "x"}, "invalid_duration", "steps[1].timeout"),
        ({"timeout": "0"}, "invalid_duration", "steps[1].timeout"),
        ({"queueTimeout": 1000}, "ambiguous_duration", "steps[1].queueTimeout"),
        ({"queue_timeout": "1s", "queue_timeout_ms": 1}, "said_twice", "steps[1].queue_timeout_ms"),
        ({"timeout_growth": 0.5}, "invalid_value", "steps[1].timeout_growth"),
        ({"compensate": ["t"]}, "invalid_value", "steps[1].compensate"),
        ({"timeout": True}, "invalid_duration", "steps[1].timeout"),
        ({"timeoutMs": -1}, "invalid_duration", "steps[1].timeoutMs"),
        ({"timeout": 30_000}, "ambiguous_duration", "steps[1].timeout"),
        ({"initialRetryDelay": 1000}, "ambiguous_duration", "steps[1].initialRetryDelay"),
        ({"timeout": "9d"}, "invalid_value", "steps[1].timeout"),
        ({"maxRetries": "3"}, "invalid_value", "steps[1].maxRetries"),
        ({"maxRetries": True}, "invalid_value", "steps[1].maxRetries"),
        ({"priority": 11}, "invalid_value", "steps[1].priority"),
        ({"queue": "a b"}, "bad_queue", "steps[1].queue"),
        ({"parallel": "yes"}, "invalid_value", "steps[1].parallel"),
        ({"params": [1]}, "invalid_value", "steps[1].params"),
        ({"input": 3}, "invalid_value", "steps[1].input"),
        ({"params": {"x": object()}}, "not_json", "steps[1].params"),
        ({"metadata": []}, "invalid_value", "steps[1].metadata"),
        ({"description": 3}, "invalid_value", "steps[1].description"),
        ({"id": 3}, "invalid_value", "steps[1].id"),
        ({"task": 3}, "invalid_value", "steps[1].task"),
        ({"task": None}, "missing", "steps[1].task"),
        ({"depends_on": {}}, "invalid_value", "steps[1].depends_on"),
        ({"depends_on": [1.5]}, "invalid_value", "steps[1].depends_on[0]"),
        ({"depends_on": [True]}, "invalid_value", "steps[1].depends_on[0]"),
        ({"dependsOn": [2]}, "unknown_dependency", "steps[1].dependsOn[0]"),
        ({"dependsOn": -1}, "unknown_dependency", "steps[1].dependsOn[0]"),
        ({"tool": "t"}, "said_twice", "steps[1].tool"),
        ({"timeout": "1s", "timeoutMs": 1}, "said_twice", "steps[1].timeoutMs"),
        ({"retry_delay": "1s", "initialRetryDelay": "1s"}, "said_twice", "steps[1].initialRetryDelay"),
        ({"params": {}, "input": {}}, "said_twice", "steps[1].input"),
    ],
)
def test_a_wrong_step_is_refused_by_its_path(fields: dict[Any, Any], code: str, path: str) -> None:
    """The error names where the mistake is, with the key that was written there."""
    error = refusal({"name": "p", "steps": [{"task": "ok"}, {"task": "t"} | fields]})
    assert (error.code, error.context["path"]) == (code, path)
    assert path in error.message


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (None, "invalid_value"),
        ([], "invalid_value"),
        ("text", "invalid_value"),
        ({}, "missing"),
        ({"name": "p"}, "missing"),
        ({"steps": []}, "missing"),
        ({"name": 3, "steps": []}, "invalid_value"),
        ({"name": "p", "steps": {"a": {}}}, "invalid_value"),
        ({"name": "p", "steps": ["a"]}, "invalid_value"),
        ({"name": "p", "steps": [], "step": []}, "unknown_key"),
        ({"name": "p", "steps": [], "config": 3}, "invalid_value"),
        ({"name": "p", "steps": [], "config": {"timeout": 1}, "timeoutMs": 1}, "said_twice"),
        ({"name": "p", "steps": [{}] * 10_001}, "too_many_steps"),
    ],
)
def test_a_wrong_document_is_refused(document: Any, code: str) -> None:
    """Whatever is given for a plan, the answer is PlanInvalid with the rule's code."""
    assert refusal(document).code == code


def test_unknown_keys_get_a_suggestion() -> None:
    """A misspelt key is answered with the nearest one that exists."""
    assert step_refusal(max_retry=3).hint == "did you mean `max_retries`?"
    assert step_refusal(dependOn=[]).hint == "did you mean `depends_on`?"


def test_an_ambiguous_duration_shows_both_meanings() -> None:
    """A bare 30000 under `timeout` would be 8 hours here and 30 s elsewhere: the hint offers both spellings."""
    assert step_refusal(timeout=30_000).hint == 'write the unit: "30000s" or "30000ms"'
    assert read_settings({"timeout": 3_600}, in_seconds=True).timeout_ms == 3_600_000
    document = {"name": "p", "steps": [{"task": "t", "timeout": 3_600}], "config": {"executionTimeout": 7_200}}
    plan = read_plan(document, in_seconds=True)
    assert (plan.steps[0].timeout_ms, plan.config.execution_timeout_ms) == (3_600_000, 7_200_000)


# The wire ------------------------------------------------------------------------------------------------------------


def test_the_canonical_form_is_read_as_it_is() -> None:
    """Bytes that a plan was stored as come back as the same plan, the same bytes, the same id."""
    graph = compile_plan(Plan(name="p", steps=(Step(id="a", task="t", params={"x": "${input}"}, timeout_ms=5),)))
    again = decode_plan(graph.raw)
    assert (again.plan, again.raw, again.plan_id) == (graph.plan, graph.raw, graph.plan_id)
    assert decode_plan(msgspec.Raw(graph.raw)).raw == graph.raw


def test_the_wire_takes_what_people_write() -> None:
    """A raw client may use every alias; what is kept is the canonical form."""
    raw = json.dumps({"name": "p", "steps": [{"tool": "a"}, {"action": "b", "dependsOn": [0], "retryDelayMs": 5}]}, indent=2)
    graph = decode_plan(raw.encode())
    assert graph.dependencies == ((), (0,))
    assert b'"initial_retry_delay_ms":5' in graph.raw
    assert b"tool" not in graph.raw


def deep(depth: int) -> bytes:
    return b'{"name":"p","steps":[{"task":"t","params":{"x":' + b"[" * depth + b"]" * depth + b"}}]}"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b'{"name":NaN}', "bad_json"),
        (b"[" * 100_000, "too_deep"),
        (deep(99), None),
        (deep(100), "too_deep"),
        (deep(400), "too_deep"),
        (b'{"name":"p\xff","steps":[{"task":"t"}]}', "not_utf8"),
        (b'{"name":"p","steps":[{"id":"a","task":"t","params":{"x":"\xed\xa0\x80"}}]}', "not_utf8"),
        (b'{"name":"\\ud800","steps":[{"task":"t"}]}', "bad_json"),
        (b'{"name":"p","steps":[{"id":"a","task":"t","params":{"x":1e999}}]}', "bad_json"),
        (b'{"name":"p","steps":[{"id":"a","task":"t","params":{"x":' + b"9" * 5_000 + b"}}]}", "bad_json"),
        (b'{"name":"p","steps":[{"id":"a","task":"t","params":{"x":9007199254740993}}]}', "not_canonical"),
        (b" " * (limits.large_plan_bytes + 1), "too_large"),
        (b"null", "invalid_value"),
        (b'{"name":"p","steps":[]}', "empty_plan"),
        (b'{"name":"p","steps":[{"id":"a","task":"t","queue":"a\\n"}]}', "bad_queue"),
        (b'{"name":"p","steps":[{"task":"t","priority":-1}]}', "invalid_value"),
    ],
)
def test_any_bytes_get_an_answer(raw: bytes, code: str | None) -> None:
    """Broken, deep, huge or foreign bytes are PlanInvalid with a code, never another exception."""
    if code is None:
        assert decode_plan(raw).steps[0].task == "t"
        return
    with pytest.raises(PlanInvalid) as refused:
        decode_plan(raw)
    assert refused.value.code == code


# A namespace -----------------------------------------------------------------------------------------------------------


def test_a_change_of_a_namespace() -> None:
    """Aliases and durations as everywhere; what is None is taken back, also in a queue, also beside a preset."""
    queues = {"slow": {"timeout": "10m", "maxRetries": None}, "fast": None}
    assert read_change({"retryDelay": "2s", "timeout": None, "queues": queues}) == {
        "initial_retry_delay_ms": 2_000,
        "timeout_ms": None,
        "queues": {"slow": {"timeout_ms": 600_000, "max_retries": None}, "fast": None},
    }
    bulk = msgspec.to_builtins(PRESETS["bulk"])
    assert read_change({"preset": "bulk", "max_retries": None}) == bulk | {"max_retries": None}
    assert read_change({"preset": None, "queues": None}) == {"queues": None}
    assert read_change({}) == {}


@pytest.mark.parametrize(
    ("written", "code", "path"),
    [
        ({"queues": 5}, "invalid_value", "queues"),
        ({"queues": {"slow": 5}}, "invalid_value", "queues.slow"),
        ({"queues": {"a b": {}}}, "bad_queue", "queues.a b"),
        ({"queues": {"_ours": {}}}, "bad_queue", "queues._ours"),
        ({"queues": {"slow": {"queue": "fast"}}}, "unknown_key", "queues.slow.queue"),
        ({"queues": {"slow": {"preset": "bulk"}}}, "unknown_key", "queues.slow.preset"),
        ({"queues": {"slow": {"timeout": "soon"}}}, "invalid_duration", "queues.slow.timeout"),
        ({"queues": {"slow": {"priority": 11}}}, "invalid_value", "queues.slow.priority"),
        ({"timeout": None, "timeout_ms": 5}, "said_twice", "timeout_ms"),
        ({"nonsense": None}, "unknown_key", "nonsense"),
    ],
)
def test_a_change_that_cannot_be(written: dict[str, Any], code: str, path: str) -> None:
    """Refused with its place."""
    with pytest.raises(ValidationError) as raised:
        read_change(written)
    assert (raised.value.code, raised.value.context["path"]) == (code, path)


def test_only_a_namespace_has_settings_of_queues() -> None:
    """Elsewhere they are refused, with where they belong; a namespace's config without any is taken like any other."""
    plan = {"name": "n", "steps": [{"task": "t"}]}
    for written in (
        {**plan, "queues": {}},
        {**plan, "config": {"queues": {}}},
        {"name": "n", "steps": [{"task": "t", "queues": {}}]},
    ):
        with pytest.raises(PlanInvalid) as raised:
            read_plan(written)
        assert (raised.value.code, "namespace" in (raised.value.hint or "")) == ("unknown_key", True)
    raw = msgspec.json.encode({**plan, "config": {"queues": {"q": {"priority": 1}}}})
    with pytest.raises(PlanInvalid):
        decode_plan(raw)
    assert read_config(NamespaceConfig(max_retries=1)) == ExecutionConfig(max_retries=1)
    with pytest.raises(ValidationError):
        read_config(NamespaceConfig(queues={"q": QueueSettings(priority=1)}))

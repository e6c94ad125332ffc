"""What holds for every plan, every text and every byte."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esexec.domain.canonical import plan_id
from esexec.domain.durations import milliseconds
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.domain.graph import compile_plan
from esexec.domain.plan import Plan, Step
from esexec.domain.reading import decode_plan, read_config, read_plan
from esexec.domain.references import compile_params, resolve
from esexec.domain.settings import PRESETS, ExecutionConfig, TaskSettings
from tests.properties.strategies import configs, of_steps, settings_of_tasks

names = st.text(alphabet="abcXYZ019_-", min_size=1, max_size=8)
texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
literals = st.recursive(
    st.integers(-(2**53) + 1, 2**53 - 1) | texts.filter(lambda text: "${" not in text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
odd_texts = st.lists(
    st.sampled_from(["$", "{", "}", "${", "$${", "input", "steps", ".", "a", "[0]", '["', '"]', " "]), max_size=10
)


task_names = names.filter(lambda name: name[0] != "-")


def said(settings: TaskSettings) -> dict[str, Any]:
    """The settings by name, without those that say nothing."""
    return {name: value for name, value in msgspec.structs.asdict(settings).items() if value is not None}


@st.composite
def acyclic_plans(draw: st.DrawFn) -> Plan:
    """Plans whose steps depend on earlier ones, in words or by reference, then shuffled."""
    count = draw(st.integers(1, 12))
    steps = []
    for number in range(count):
        earlier = [f"s{other}" for other in range(number)]
        depends_on = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=4)) if earlier else []
        references = draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else []
        params = {f"p{index}": f"${{steps.{name}.output}}" for index, name in enumerate(references)}
        steps.append(
            Step(
                id=f"s{number}",
                task=draw(task_names),
                params={**params, "c": draw(literals)},
                depends_on=tuple(depends_on),
                parallel=draw(st.booleans()),
                description=draw(texts),
                fallback=draw(st.none() | task_names),
                compensate=draw(st.none() | task_names),
                **said(draw(settings_of_tasks)),
                **{name: draw(values) for name, values in of_steps.items()},
            )
        )
    shuffled = draw(st.permutations(steps))
    return Plan(name=draw(names), steps=tuple(shuffled), config=draw(configs))


def no_output(step: str) -> Any:
    raise KeyError(step)


@given(acyclic_plans())
def test_an_acyclic_plan_compiles_to_a_graph_that_can_be_walked(plan: Plan) -> None:
    """Dependencies and dependents mirror each other, in plan order without duplicates, and every step can be reached."""
    graph = compile_plan(plan)
    edges = {(before, after) for after, waits_for in enumerate(graph.dependencies) for before in waits_for}
    assert edges == {(before, after) for before, waiting in enumerate(graph.dependents) for after in waiting}
    for numbers in (*graph.dependencies, *graph.dependents, graph.sinks):
        assert list(numbers) == sorted(set(numbers))
    assert set(graph.sinks) == set(range(len(plan.steps))) - {before for before, _ in edges}
    done: set[int] = set()
    while ready := {n for n, waits_for in enumerate(graph.dependencies) if n not in done and done.issuperset(waits_for)}:
        done |= ready
    assert len(done) == len(plan.steps)
    for step, waits_for, template in zip(graph.steps, graph.dependencies, graph.templates, strict=True):
        referred = {ref.step for ref in template.references if ref.step} if template else set()
        assert {graph.steps[n].id for n in waits_for} == set(step.depends_on) | referred


@given(acyclic_plans())
def test_a_plan_survives_every_form(plan: Plan) -> None:
    """Stored bytes, the wire and a document give back the same plan, bytes and id."""
    graph = compile_plan(plan)
    decoded = decode_plan(graph.raw)
    read = compile_plan(read_plan(json.loads(graph.raw)))
    assert decoded.plan == read.plan == graph.plan
    assert decoded.raw == read.raw == graph.raw
    assert decoded.plan_id == read.plan_id == graph.plan_id == plan_id(graph.plan)


@given(acyclic_plans(), st.data())
def test_closing_a_circle_is_a_cycle(plan: Plan, data: st.DataObject) -> None:
    """One dependency backwards along a path makes a cycle, and the cycle that is named is one."""
    graph = compile_plan(plan)
    start = data.draw(st.integers(0, len(plan.steps) - 1))
    end = start
    for further in data.draw(st.lists(st.booleans(), max_size=12)):
        if further and graph.dependents[end]:
            end = graph.dependents[end][0]
    if end == start:
        return
    steps = list(plan.steps)
    steps[start] = msgspec.structs.replace(steps[start], depends_on=(*steps[start].depends_on, steps[end].id))
    broken = msgspec.structs.replace(plan, steps=tuple(steps))
    with pytest.raises(PlanInvalid) as refused:
        compile_plan(broken)
    assert refused.value.code == "cycle"
    cycle = refused.value.context["cycle"]
    for name, other in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        step = steps[graph.index[name]]
        assert other in step.depends_on or f"steps.{other}." in json.dumps(step.params)


@given(configs, st.none() | st.sampled_from(list(PRESETS)))
def test_a_preset_gives_what_was_not_said(config: ExecutionConfig, preset: str | None) -> None:
    """Of any settings beside any preset: each is what was said, else what the preset says; a config is read back as it is."""
    weaker = ExecutionConfig.preset(preset) if preset is not None else ExecutionConfig()
    assert read_config(config) == read_config(said(config)) == config
    document = {"preset": preset, **said(config)}
    assert said(read_config(document)) == {**said(weaker), **said(config)}
    plan = {"name": "p", "steps": [{"task": "t"}], "preset": preset, "config": config}
    assert read_plan(plan).config == read_config(document)


def code_of(call: Callable[[], object]) -> str:
    """What became of a call: "" if it went well, else the code of its ValidationError. Any other exception fails the test."""
    try:
        call()
    except ValidationError as error:
        return error.code
    return ""


@given(st.binary(max_size=200) | odd_texts.map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_a_plan_or_plan_invalid(raw: bytes) -> None:
    """`decode_plan` knows two endings: a graph, or PlanInvalid."""
    assert code_of(lambda: decode_plan(raw)) != "invalid"


keys = st.sampled_from(
    [
        "id",
        "task",
        "tool",
        "params",
        "input",
        "depends_on",
        "dependsOn",
        "timeout",
        "timeoutMs",
        "retry_delay",
        "queue",
        "priority",
        "fallback",
        "compensate",
        "queueTimeout",
        "preset",
        "checkpoint_every",
        "execution_timeout_ms",
        "x",
    ]
)
flow_keys = [
    "max_executions",
    "maxExecutions",
    "window",
    "window_ms",
    "key",
    "on_limit",
    "limit",
    "total",
    "scope",
    "policy",
    "type",
]
flow_keys += ["amount", "duration", "durationMs", "priority", "constraints", "x"]
flow_words = st.sampled_from(["a", "input.a", "${params.b}", "${steps.c.output}", "reject", "queue", "skip", "1m", "gpu", "${"])
flow_values = st.dictionaries(st.sampled_from(flow_keys), flow_words | st.integers(-1, 9) | values, max_size=4)
flow = st.dictionaries(
    st.sampled_from(["rate_limit", "rateLimit", "concurrency", "resources"]),
    flow_values | st.lists(flow_values, max_size=3) | st.dictionaries(flow_words, st.integers(-1, 9) | flow_values) | values,
    max_size=3,
)
_steps = st.tuples(st.dictionaries(keys, values | names | st.just(["a"])) | st.just({"task": "t"}), flow).map(
    lambda parts: parts[0] | parts[1]
)
documents = st.fixed_dictionaries(
    {"name": names | values, "steps": st.lists(_steps, max_size=4) | values},
    optional={
        "config": st.dictionaries(keys, values) | flow,
        "parallel": values,
        "metadata": values,
        "maxRetries": values,
        "preset": values | st.sampled_from(list(PRESETS)),
        "checkpointEvery": values,
    },
)


@given(documents | values)
@settings(max_examples=300)
def test_any_document_is_a_plan_or_plan_invalid(document: Any) -> None:
    """Whatever JSON says, reading and compiling end in a graph or in PlanInvalid, with the same answer on every way in."""
    raw = msgspec.json.encode(document)
    assert code_of(lambda: compile_plan(read_plan(document))) == code_of(lambda: decode_plan(raw))


@given(values, st.data())
def test_a_reference_finds_what_a_path_leads_to(value: Any, data: st.DataObject) -> None:
    """Any path through any JSON value, written as a reference, resolves to what is there."""
    text, there = "${input", value
    while isinstance(there, dict | list) and there and data.draw(st.booleans()):
        if isinstance(there, dict):
            key = data.draw(st.sampled_from(sorted(there.keys())))
            text += f"[{json.dumps(key)}]"
            there = there[key]
        else:
            index = data.draw(st.integers(0, len(there) - 1))
            text += f"[{index}]"
            there = there[index]
    template = compile_params({"a": [text + "}"]})
    assert template is not None
    assert resolve(template, input=value, context={}, output_of=no_output) == {"a": [there]}


@given(literals)
def test_escaped_text_stays_what_it_was(params: Any) -> None:
    """Without `${` params are constant; with every `${` escaped they resolve to themselves."""
    assert compile_params(params) is None
    written = {"text": "a ${b} $${c} ${", "params": params}
    template = compile_params({**written, "text": "a $${b} $$${c} $${"})
    assert template is not None
    assert resolve(template, input=None, context={}, output_of=no_output) == written


@given(odd_texts.map("".join) | texts.map(lambda text: "${" + text))
def test_any_text_is_a_template_or_a_validation_error(text: str) -> None:
    """Compiling and resolving any string ends in a value or in ValidationError."""

    def compile_and_resolve() -> None:
        template = compile_params(text)
        if template is not None:
            resolve(template, input={"a": [1]}, context={}, output_of=no_output)

    assert code_of(compile_and_resolve) in ("", "bad_reference", "reference_unresolved")


@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,4}(ms|s|m|h|d)", fullmatch=True) | st.integers() | st.floats() | values)
def test_any_value_is_a_duration_or_a_validation_error(value: Any) -> None:
    """`milliseconds` gives a whole number from 0, or `invalid_duration`."""
    found: list[int] = []
    assert code_of(lambda: found.append(milliseconds(value, name="timeout"))) in ("", "invalid_duration")
    assert all(type(outcome) is int and outcome >= 0 for outcome in found)

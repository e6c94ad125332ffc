"""Rate limits, concurrency keys and resources as people say them: of tasks, steps, plans, starts and the namespace."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

import esexec
from esexec import Key, Plan, PlanInvalid, RateLimit, ResourceRequirement, Step, ValidationError
from esexec.cli.configure import read_settings as read_pairs
from esexec.client.commands import start_command
from esexec.domain import commands as c
from esexec.domain.graph import compile_plan
from esexec.domain.namespace import NamespaceState, decide_namespace, fold_namespace
from esexec.domain.reading import decode_plan, read_change, read_plan
from esexec.domain.settings import ExecutionConfig, NamespaceConfig, QueueSettings, TaskInfo, merge
from tests.given import given, start, step
from tests.unit.test_namespace import committed

TEN = RateLimit(10, 60_000)
GPU = ResourceRequirement("gpu", 2)

# In Python -------------------------------------------------------------------------------------------------------------


@esexec.task(
    rate_limit={"max_executions": 10, "window": 60}, concurrency=Key("params.user", limit=3), resources={"gpu": 2}, timeout="5s"
)
async def train(user: str) -> None: ...


@train.compensate(rate_limit=TEN)
async def untrain(user: str) -> None: ...


def test_a_task_says_what_it_needs() -> None:
    """It is announced; bare numbers are seconds; what undoes it can have a rate limit of its own."""
    assert train.info == TaskInfo(
        timeout_ms=5_000,
        rate_limit=TEN,
        concurrency=Key("params.user", limit=3),
        resources=(GPU,),
        compensate="train.compensate",
    )
    assert untrain.info == TaskInfo(rate_limit=TEN)
    assert msgspec.json.decode(msgspec.json.encode(train.info), type=TaskInfo) == train.info
    with pytest.raises(ValidationError, match="concurrency"):
        untrain.compensate(concurrency=Key("params.user"))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"rate_limit": {"max_executions": 1}}, "missing"),
        ({"rate_limit": 3}, "invalid_value"),
        ({"rate_limit": {"max_executions": 1, "windw": 1}}, "unknown_key"),
        ({"concurrency": Key("steps.a.output")}, "bad_key"),
        ({"concurrency": Key("params.a", policy="skip")}, "policy_of_executions"),
        ({"concurrency": Key("params.a", limit=0)}, "invalid_value"),
        ({"resources": {"gpu": -1}}, "invalid_value"),
        ({"resources": "gpu"}, "invalid_value"),
    ],
)
def test_a_task_with_nonsense_cannot_be_made(options: dict[str, Any], code: str) -> None:
    """Found where it is decorated, by the codes that plans have; the path begins with the keyword. Steps are alike."""
    with pytest.raises(ValidationError) as refused:
        esexec.task(**options)
    assert refused.value.code == code
    assert refused.value.context["path"].startswith(next(iter(options)))
    with pytest.raises(PlanInvalid) as of_a_step:
        Step("t", **options)
    assert of_a_step.value.code == code


def test_steps_and_plans_in_python() -> None:
    """Keywords as any other; the plan goes to a dict and back, and through a file."""
    plan = Plan(
        "p",
        [
            Step(train, rate_limit=TEN, concurrency=Key("input.user", limit=2), resources=[GPU, {"type": "ram", "duration": 90}]),
            Step(train, concurrency={"key": "params.user"}, resources={"gpu": 1}),
            Step(train),
        ],
        rate_limit={"max_executions": 0},
        concurrency=Key("input.customer", limit=3, policy="skip"),
    )
    first, second, third = plan.spec.steps
    assert (first.rate_limit, first.concurrency) == (TEN, Key("input.user", limit=2))
    assert first.resources == (GPU, ResourceRequirement("ram", 1, 90_000))
    assert (second.concurrency, second.resources) == (Key("params.user"), (ResourceRequirement("gpu"),))
    assert (third.rate_limit, third.concurrency, third.resources) == (None, None, ())
    assert plan.spec.config == ExecutionConfig(
        rate_limit=RateLimit(0, 1), concurrency=Key("input.customer", limit=3, policy="skip")
    )
    assert Plan.from_dict(plan.to_dict()) == plan
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))).id == plan.id
    assert Plan("p", [Step("t")], config=ExecutionConfig(rate_limit=TEN)).spec.config.rate_limit == TEN
    with pytest.raises(PlanInvalid) as refused:
        Plan("p", [Step("t")], config=ExecutionConfig(rate_limit=TEN), rate_limit=TEN)
    assert refused.value.code == "said_twice"


def test_a_plan_does_not_change_with_what_it_was_made_of() -> None:
    """Constraints are copied."""
    constraints: dict[str, Any] = {"region": ["eu"]}
    plan = Plan("p", [Step("t", resources=[ResourceRequirement("gpu", constraints=constraints)])])
    constraints["region"].append("us")
    assert plan.spec.steps[0].resources[0].constraints == {"region": ["eu"]}


def test_a_plan_file_says_it_too(tmp_path: Path) -> None:
    """In camelCase or not; what is wrong is found by its line."""
    text = """\
name: p
rateLimit: {maxExecutions: 10, windowMs: 60000}
config:
  concurrency: {key: input.customer, limit: 3}
steps:
  - task: t
    rate_limit:
      max_executions: 10
      window: 1m
    resources: {gpu: 2}
  - task: t
    concurrency:
      key: params.user
      limit: 3
"""
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    assert Plan.from_file(file) == Plan(
        "p",
        [Step("t", rate_limit=TEN, resources={"gpu": 2}), Step("t", concurrency=Key("params.user", limit=3))],
        rate_limit=TEN,
        concurrency=Key("input.customer", limit=3),
    )
    for right, wrong, line in [
        ("window: 1m", "window: soon", 9),
        ("limit: 3\n", "limit: 0\n", 14),
        ("{gpu: 2}", "{gpu: 0}", 10),
        ("key: params.user", "key: param.user", 13),
        ("maxExecutions: 10", "maxExecution: 10", 2),
    ]:
        file.write_text(wrong.join(text.rsplit(right, 1)))
        with pytest.raises(PlanInvalid) as refused:
            Plan.from_file(file)
        assert refused.value.context["line"] == line


def test_a_start_says_it() -> None:
    """The call's level; nothing said leaves it to the others, and 0 executions switch an inherited limit off."""
    _, command = start_command("t", None, {"rate_limit": {"max_executions": 0}, "concurrency": Key("input.a")}, None)
    assert command.config == ExecutionConfig(rate_limit=RateLimit(0, 1), concurrency=Key("input.a"))
    _, command = start_command("t", None, {"rate_limit": None, "config": {"rateLimit": TEN}}, None)
    assert command.config.rate_limit == TEN
    with pytest.raises(ValidationError) as refused:
        start_command("t", None, {"concurrency": Key("params.a")}, None)
    assert refused.value.code == "bad_key"


def test_levels_are_merged_as_a_whole() -> None:
    """The stronger level's limit takes the weaker one's place; one without executions switches it off."""
    off = RateLimit(0, 1)
    assert merge((NamespaceConfig(rate_limit=TEN), TaskInfo(), None)).rate_limit == TEN
    assert merge((NamespaceConfig(rate_limit=TEN), TaskInfo(rate_limit=off))).rate_limit == off


# Commands that come from anywhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"rate_limit": {"max_executions": 1, "window_ms": 1, "key": "${steps.a.output}"}}, "bad_key"),
        ({"concurrency": {"key": "params.a"}}, "bad_key"),
        ({"concurrency": {"key": "input..a"}}, "bad_reference"),
    ],
)
def test_keys_of_commands_are_checked(config: dict[str, Any], code: str) -> None:
    """A start and a configuration that no client has checked are refused with the same code, and change nothing."""
    outcome = given().when(start("a", config=config)).then_nothing("invalid")
    assert outcome.verdict.error is not None
    assert outcome.verdict.error.code == code
    answer = decide_namespace(NamespaceState(), c.ConfigureNamespace(id="c1", config=config))
    assert getattr(answer, "code", None) == code


def test_announced_keys_are_checked() -> None:
    """A worker in any language is told what cannot be."""
    for info, code in [
        (TaskInfo(concurrency=Key("params.a", policy="skip")), "policy_of_executions"),
        (TaskInfo(concurrency=Key("steps.a.output")), "bad_key"),
        (TaskInfo(rate_limit=RateLimit(1, 1, key="params.a")), "bad_key"),
        (TaskInfo(resources=(ResourceRequirement("g", constraints={"a": "x" * 4_090}),)), "requirements_too_large"),
    ]:
        answer = decide_namespace(NamespaceState(), c.AnnounceTasks(id="c1", tasks={"t": info}))
        assert getattr(answer, "code", None) == code
    assert isinstance(decide_namespace(NamespaceState(), c.AnnounceTasks(id="c1", tasks={"t": train.info})), list)


def test_a_namespace_is_configured() -> None:
    """Limits and keys are said as a whole, of a queue too, on the command line as well; null takes them back."""
    pairs = ["rate_limit.max_executions=10", "rate_limit.window=1m", "concurrency.key=input.customer", "concurrency.limit=3"]
    pairs += ["queues.slow.rateLimit.maxExecutions=10", "queues.slow.rateLimit.windowMs=60000"]
    change = read_change(read_pairs(pairs), in_seconds=True)
    state = configured(NamespaceState(), change)
    assert state.config == NamespaceConfig(
        rate_limit=TEN,
        concurrency=Key("input.customer", limit=3),
        queues={"slow": QueueSettings(rate_limit=TEN)},
    )
    state = configured(state, read_change({"rate_limit": {"max_executions": 1, "window": 1, "on_limit": "reject"}}))
    state = configured(state, read_change({"rate_limit": {"max_executions": 2, "window": 1}}))
    assert state.config.rate_limit == RateLimit(2, 1_000)
    state = configured(state, read_change(read_pairs(["rate_limit=", "concurrency=", "queues.slow.rate_limit="])))
    assert state.config == NamespaceConfig()
    with pytest.raises(ValidationError, match="concurrency"):
        read_change({"queues": {"slow": {"concurrency": {"key": "a"}}}})


def configured(state: NamespaceState, change: dict[str, Any]) -> NamespaceState:
    events = decide_namespace(state, c.ConfigureNamespace(id=f"c{state.n}", config=change))
    assert isinstance(events, list)
    return fold_namespace([committed(state, f"c{state.n}", *events)], state)


# Plans without any pay nothing -------------------------------------------------------------------------------------------


def test_plans_without_flow_control_keep_bytes_and_id() -> None:
    """What is not said leaves no trace in what is stored."""
    golden = "a7549c6f4a844cfcaf05d75c4285c24d6a41b42eb1250dd8b01a004e83709c82"
    nothing: dict[str, Any] = {"rate_limit": None, "concurrency": None}
    one = {"id": "a", "task": "t", "params": {"b": 2, "a": "é"}, "timeoutMs": 5, "resources": [], **nothing}
    document = {"name": "p", "parallel": True, "steps": [one], **nothing}
    graph = compile_plan(read_plan(document))
    assert graph.plan_id == golden
    assert (
        graph.raw
        == '{"name":"p","steps":[{"timeout_ms":5,"id":"a","task":"t","params":{"b":2,"a":"é"}}],"parallel":true}'.encode()
    )


@pytest.mark.parametrize(
    "said", [{"rate_limit": TEN}, {"concurrency": Key("input.a")}, {"resources": {"gpu": 1}}, {"rate_limit": RateLimit(0, 1)}]
)
def test_flow_control_counts_for_the_id(said: dict[str, Any]) -> None:
    """A step with a limit is another step; the plan is known as gated, and its stored form is read back as it is."""
    plan = Plan("p", [Step("t"), Step("t", **said)])
    assert plan.id != Plan("p", [Step("t"), Step("t")]).id
    assert plan.graph.gated
    assert decode_plan(plan.graph.raw).raw == plan.graph.raw


def test_gated_is_what_concerns_steps() -> None:
    """How many executions may run is told apart: their steps pass no gate."""
    assert not Plan("p", [Step("t", timeout="5s")], max_retries=1).graph.gated
    assert not Plan("p", [Step("t")], concurrency=Key("input.a")).graph.gated
    assert Plan("p", [Step("t")], rate_limit=TEN).graph.gated


def test_ids_do_not_depend_on_how_it_was_written() -> None:
    """One plan, one id: short forms, objects and mappings mean the same."""
    forms: list[Any] = [{"gpu": 2}, [GPU], [{"type": "gpu", "amount": 2.0}]]
    assert len({Plan("p", [Step("t", resources=form)]).id for form in forms}) == 1


def test_steps_of_a_start_are_read_with_them() -> None:
    """What the first commit holds is what was said."""
    history = given(start(step("a", rate_limit={"max_executions": 1, "window": "1m"}, resources={"gpu": 1})))
    assert b'"rate_limit":{"max_executions":1,"window_ms":60000}' in bytes(history.state.created.plan)


# Lint --------------------------------------------------------------------------------------------------------------------


def test_a_limit_beyond_the_total_is_told() -> None:
    """One key could take all places."""
    plan = Plan("p", [Step("t", concurrency=Key("input.a", limit=3, total=2))], concurrency=Key("input.a", limit=2, total=2))
    assert [(one.code, one.path) for one in plan.lint()] == [("limit_beyond_total", "steps[0].concurrency.limit")]

"""Plans written in Python and read from files."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from esexec.domain.errors import PlanInvalid
from esexec.domain.settings import ExecutionConfig
from esexec.plans import Plan, Step


class Named:
    """What a decorated task function is to a plan."""

    name = "create_facility"


def refusal(build: Any) -> PlanInvalid:
    with pytest.raises(PlanInvalid) as refused:
        build()
    return refused.value


def test_a_plan_as_in_the_readme() -> None:
    """Tasks by function or name, references, default ids: the plan is compiled when it is made."""
    plan = Plan(
        "onboarding",
        steps=[
            Step(Named(), id="facility", params={"name": "${input.name}", "city": "Lyon"}),
            Step("write_report", id="report", params={"id": "${steps.facility.output.id}"}),
            Step(Named()),
        ],
    )
    assert plan.name == "onboarding"
    assert [(step.id, step.task) for step in plan.spec.steps] == [
        ("facility", "create_facility"),
        ("report", "write_report"),
        ("create_facility", "create_facility"),
    ]
    assert plan.graph.dependencies == ((), (0,), ())
    assert plan.id == plan.graph.plan_id
    assert "onboarding" in repr(plan)


def test_durations_in_python() -> None:
    """Strings with units, numbers of seconds however large, timedeltas; names in `_ms` count milliseconds."""
    step = Step("t", timeout=7_200, retry_delay="1s", max_retry_delay=timedelta(minutes=1), max_retry_after_ms=5)
    built = Plan("p", [step]).spec.steps[0]
    assert (built.timeout_ms, built.initial_retry_delay_ms) == (7_200_000, 1_000)
    assert (built.max_retry_delay_ms, built.max_retry_after_ms) == (60_000, 5)


def test_plan_wide_settings() -> None:
    """Keyword settings and `config` are the plan's level; the same twice is refused."""
    config = ExecutionConfig(max_retries=7)
    plan = Plan("p", [Step("t")], parallel=True, config=config, timeout="5s", parallel_execution_limit=2, continue_on_error=True)
    assert plan.spec.config == ExecutionConfig(
        max_retries=7, timeout_ms=5_000, parallel_execution_limit=2, continue_on_error=True
    )
    assert plan.graph.parallel == (True,)
    assert refusal(lambda: Plan("p", [Step("t")], config=config, max_retries=7)).code == "said_twice"


def test_settings_of_the_lifecycle_in_python() -> None:
    """Queue timeouts, growing timeouts, deadlines, checkpoints and missing undos are keyword arguments as any other."""
    step = Step("t", timeout_growth=2, queue_timeout=timedelta(minutes=1))
    plan = Plan(
        "p", [step], on_missing_compensation="fail", execution_timeout=7_200, checkpoint_interval="5m", checkpoint_every="task"
    )
    built = plan.spec.steps[0]
    assert (built.timeout_growth, built.queue_timeout_ms) == (2.0, 60_000)
    assert plan.spec.config == ExecutionConfig(
        on_missing_compensation="fail", execution_timeout_ms=7_200_000, checkpoint_interval_ms=300_000, checkpoint_every="task"
    )


def test_a_step_names_other_tasks_by_function_or_name() -> None:
    """`fallback` and `compensate` take what `task` takes."""
    plan = Plan("p", [Step("t", fallback=Named(), compensate="undo"), Step("u", compensate=Named())])
    assert [(step.fallback, step.compensate) for step in plan.spec.steps] == [
        ("create_facility", "undo"),
        (None, "create_facility"),
    ]
    assert Plan.from_dict(plan.to_dict()) == plan
    assert plan.id != Plan("p", [Step("t", compensate="undo"), Step("u", compensate=Named())]).id


def test_a_preset_in_python() -> None:
    """`preset` is the weakest of what is said of a plan: by keyword, or in `config` as a mapping or the object."""
    bulk = ExecutionConfig.preset("bulk")
    assert Plan("p", [Step("t")], preset="bulk").spec.config == bulk
    assert Plan("p", [Step("t")], config=bulk).spec.config == bulk
    seven = Plan("p", [Step("t")], preset="bulk", max_retries=7)
    assert seven.spec.config.max_retries == 7
    assert seven.spec.config.parallel_execution_limit == 10
    assert Plan("p", [Step("t")], preset="bulk", config={"max_retries": 7}) == seven
    assert Plan("p", [Step("t")], preset="bulk", config=ExecutionConfig(max_retries=7)) == seven
    assert Plan("p", [Step("t")], max_retries=7, config={"preset": "bulk"}) == seven
    assert Plan("p", [Step("t")], config={"execution_timeout": 7_200}).spec.config.execution_timeout_ms == 7_200_000


def test_dependencies_are_ids_positions_or_steps() -> None:
    """A Step object stands for the step it is, whatever its id becomes."""
    first, second = Step("t"), Step("t")
    plan = Plan("p", [first, second, Step("u", depends_on=[second, 0]), Step("v", depends_on=second), Step("w", depends_on="t")])
    assert plan.graph.dependencies == ((), (), (0, 1), (1,), (0,))


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda: Step(len), "bad_task_name"),  # type: ignore[arg-type]
        (lambda: Step("t", fallback=len), "bad_task_name"),  # type: ignore[arg-type]
        (lambda: Step("t", compensate=3), "bad_task_name"),  # type: ignore[arg-type]
        (lambda: Plan("p", [Step("t", fallback="a b")]), "bad_task_name"),
        (lambda: Plan("p", [Step("t")], preset="bulky"), "unknown_preset"),
        (lambda: Plan("p", [Step("t")], preset="bulk", config={"preset": "bulk"}), "said_twice"),
        (lambda: Plan("p", [Step("t")], checkpoint_every="hour"), "invalid_value"),  # type: ignore[arg-type]
        (lambda: Plan("p", [Step("t")], config=3), "invalid_value"),  # type: ignore[arg-type]
        (lambda: Step("t", preset="bulk"), "unknown_key"),  # type: ignore[call-arg]
        (lambda: Step("t", timeout="soon"), "invalid_duration"),
        (lambda: Step("t", timout=3), "unknown_key"),  # type: ignore[call-arg]
        (lambda: Step("t", priority=11), "invalid_value"),
        (lambda: Plan("p", []), "empty_plan"),
        (lambda: Plan("p", "t"), "invalid_value"),  # type: ignore[arg-type]
        (lambda: Plan("p", ["t"]), "invalid_value"),  # type: ignore[list-item]
        (lambda: Plan("p", [Step("t")] * 2), "duplicate_step"),
        (lambda: Plan("p", [Step("t", depends_on=Step("u"))]), "unknown_dependency"),
        (lambda: Plan("p", [Step("t", depends_on=[None])]), "invalid_value"),  # type: ignore[list-item]
        (lambda: Plan("p", [Step("t")], max_retrys=3), "unknown_key"),  # type: ignore[call-arg]
        (lambda: Plan("p", [Step("a", depends_on="b"), Step("b", depends_on="a")]), "cycle"),
        (lambda: Plan("p", [Step("a", params="text")]), "bad_params"),
    ],
)
def test_a_wrong_plan_cannot_be_made(build: Any, code: str) -> None:
    """Construction validates: PlanInvalid with the rule's code."""
    assert refusal(build).code == code


def test_a_plan_goes_to_a_dict_and_back() -> None:
    """`to_dict` gives plain JSON values from which `from_dict` makes an equal plan."""
    plan = Plan("p", [Step("t", params={"x": (1, 2)}), Step("u", depends_on=0, jitter=0)], metadata={"m": 1}, max_retries=1)
    document = plan.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert Plan.from_dict(document) == plan
    assert hash(Plan.from_dict(document)) == hash(plan)
    assert plan != Plan("p", [Step("t")])


def test_a_plan_does_not_change_with_what_it_was_made_of() -> None:
    """Params are copied: changing them afterwards changes nothing."""
    params = {"x": [1]}
    plan = Plan("p", [Step("t", params=params)])
    params["x"].append(2)
    assert plan.to_dict()["steps"][0]["params"] == {"x": [1]}


# Files ---------------------------------------------------------------------------------------------------------------

YAML = """\
name: onboarding
parallelExecutionLimit: 3
steps:
  - task: create
    params: {name: "${input.name}"}
    timeout: 30s
  - tool: report
    dependsOn: [0]
    input:
      id: ${steps.create.output.id}
      on: yes
      mode: 0o17
"""


def written(tmp_path: Path, text: str | bytes, name: str = "plan.yaml") -> Path:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_yaml_is_version_1_2(tmp_path: Path) -> None:
    """YAML files are read as YAML 1.2: `on` and `yes` are words, `0o17` is fifteen."""
    plan = Plan.from_file(written(tmp_path, YAML))
    assert plan.spec.steps[1].params == {"id": "${steps.create.output.id}", "on": "yes", "mode": 15}
    assert plan.spec.config.parallel_execution_limit == 3


def test_files_say_what_stands_in_and_what_undoes(tmp_path: Path) -> None:
    """`preset`, `fallback`, `compensate` and the settings of the lifecycle are keys of a plan file."""
    text = (
        "name: p\nconfig: {preset: bulk, maxRetries: 7, executionTimeout: 2h, checkpointEvery: task}\n"
        "steps: [{task: t, fallback: b, compensate: c, timeoutGrowth: 2, queueTimeout: 1m}]\n"
    )
    assert Plan.from_file(written(tmp_path, text)) == Plan(
        "p",
        [Step("t", fallback="b", compensate="c", timeout_growth=2, queue_timeout="1m")],
        preset="bulk", max_retries=7, execution_timeout="2h", checkpoint_every="task",
    )  # fmt: skip


def test_json_files(tmp_path: Path) -> None:
    """A `.json` file, with or without a byte order mark, is the same plan."""
    plan = Plan.from_file(written(tmp_path, YAML))
    assert Plan.from_file(written(tmp_path, json.dumps(plan.to_dict()), "plan.json")) == plan
    assert Plan.from_file(str(written(tmp_path, "\ufeff" + json.dumps(plan.to_dict()), "bom.json"))) == plan


@pytest.mark.parametrize(
    ("name", "text", "code", "line"),
    [
        ("p.yaml", YAML.replace("timeout", "timeuot"), "unknown_key", 6),
        ("p.yaml", YAML.replace("30s", "soon"), "invalid_duration", 6),
        ("p.yaml", YAML.replace("[0]", "[7]"), "unknown_dependency", 8),
        ("p.yaml", YAML.replace("steps.create", "steps.craete"), "unknown_reference", 9),
        ("p.yaml", YAML.replace("Limit: 3", "Limit: 0"), "invalid_value", 2),
        ("p.yaml", "name: p\nconfig:\n  timeout: x\nsteps: [{task: t}]", "invalid_duration", 3),
        ("p.yaml", "name: p\nsteps:\n  - task: a\n    depends_on: b\n  - task: b\n    depends_on: a\n", "cycle", 3),
        ("p.yaml", "name: p\nconfig:\n  max_retries: 7\n  preset: bulky\nsteps: [{task: t}]", "unknown_preset", 4),
        ("p.yaml", "name: p\nsteps: [{task: t}]\npreset: bulky\n", "unknown_preset", 3),
        ("p.yaml", "name: p\ncheckpointEvery: hour\nsteps: [{task: t}]\n", "invalid_value", 2),
        ("p.yaml", "name: p\nsteps:\n  - task: t\n    compensate: a b\n", "bad_task_name", 4),
        ("p.yaml", "name: p\nsteps: [}", "bad_yaml", 2),
        ("p.yaml", "name: p\nname: q\n", "bad_yaml", 2),
        ("p.yaml", "name: !!python/name:os.system x\n", "bad_yaml", 1),
        ("p.yaml", "name: \x00", "bad_yaml", None),
        ("p.yaml", "name: 2026-99-99\n", "bad_yaml", None),
        ("p.yaml", "name: p\nsteps: [{task: t, params: &a {x: *a}}]", "too_deep", None),
        ("p.yaml", "", "invalid_value", None),
        ("p.yaml", b"name: p\nsteps: \xff", "not_utf8", 2),
        ("p.yaml", b" " * 9_000_000, "too_large", None),
        ("p.json", '{"name": "p",\n "steps": [}', "bad_json", 2),
        ("p.json", '{"name": "p", "name": "q"}', "bad_json", None),
        ("p.json", '{"name": NaN}', "bad_json", None),
        ("p.json", "[" * 100_000, "bad_json", None),
        ("p.json", '{"name": "p",\n "steps": [\n  {"task": "t", "x": 1}]}', "unknown_key", 3),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, name: str, text: str | bytes, code: str, line: int | None) -> None:
    """Errors say which file and, where it is known, which line."""
    file = written(tmp_path, text, name)
    error = refusal(lambda: Plan.from_file(file))
    assert error.code == code
    assert error.context["file"] == str(file)
    assert error.context.get("line") == line
    assert error.message.startswith(str(file) if line is None else f"{file}:{line}:")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file or a folder is `file_unreadable`."""
    assert refusal(lambda: Plan.from_file(tmp_path / "none.yaml")).code == "file_unreadable"
    assert refusal(lambda: Plan.from_file(tmp_path)).code == "file_unreadable"


def test_a_yaml_bomb_is_refused_at_once(tmp_path: Path) -> None:
    """A small file that repeats itself without end is `too_large`, in bounded time and memory."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    bomb = "\n".join(["l0: &l0 x", *levels])
    text = "name: p\nsteps:\n- task: t\n  params:\n" + "\n".join(f"    {line}" for line in bomb.splitlines())
    assert refusal(lambda: Plan.from_file(written(tmp_path, text))).code == "too_large"

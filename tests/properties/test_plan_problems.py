"""Whatever stands in a plan file: `plan check` ends, throws nothing, and calls good exactly what would be accepted."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esexec.domain import limits
from esexec.domain.errors import PlanInvalid
from esexec.plan_problems import check_file
from esexec.plans import Plan

NAMES = st.sampled_from(["a", "b", "c", "no good name", "", "_a", "é"])
REFERENCES = st.sampled_from(["${steps.a.output} ${steps.x.output}", "${input}", "${nonsense}", "${steps.b.output"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | NAMES
    | st.just("${steps.a.output} ${steps.x.output}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
KEYS = ["id", "task", "tool", "params", "depends_on", "dependsOn", "timeout", "max_retries", "parallel", "fallback", "rate_limit"]
STEPS = st.dictionaries(st.sampled_from([*KEYS, "concurrency", "resources", "nonsense", "a.b", "metadata"]), VALUES, max_size=5)
GOOD = st.fixed_dictionaries(
    {"task": st.sampled_from(["a", "b"])}, optional={"id": NAMES, "depends_on": st.lists(NAMES, max_size=2)}
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["name", "steps", "config", "parallel", "description", "nonsense", "preset"]),
    VALUES | st.lists(STEPS | GOOD | VALUES, max_size=6),
    max_size=5,
) | st.fixed_dictionaries({"name": NAMES, "steps": st.lists(GOOD | STEPS, min_size=1, max_size=6)})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans") / "plan.json"


@settings(max_examples=300, deadline=None)
@given(document=DOCUMENTS | VALUES)
def test_good_is_what_would_be_accepted(file: Path, document: Any) -> None:
    """No problem is told exactly where the plan can be carried out; places lie within the file."""
    text = json.dumps(document, indent=1)
    file.write_text(text, encoding="utf-8")
    try:
        accepted: Plan | None = Plan.from_file(file)
    except PlanInvalid:
        accepted = None
    plan, found = check_file(file)
    assert plan == accepted
    problems = [one for one in found if one.severity == "problem"]
    assert bool(problems) == (accepted is None)
    assert len(problems) <= limits.plan_problems + 1
    lines = text.splitlines()
    for one in found:
        if one.line is not None and one.column is not None:
            assert one.excerpt == lines[one.line - 1]
            assert one.column - 1 + one.width <= len(one.excerpt)


@settings(max_examples=100, deadline=None)
@given(document=DOCUMENTS)
def test_the_first_problem_is_among_them(file: Path, document: Any) -> None:
    """What refuses the plan is one of the problems that are told."""
    file.write_text(json.dumps(document, indent=1), encoding="utf-8")
    code = None
    try:
        Plan.from_file(file)
    except PlanInvalid as error:
        code = error.code
    assert code is None or code in {one.code for one in check_file(file).found}


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200))
def test_bytes_are_never_thrown_back(file: Path, data: bytes) -> None:
    """Whatever a file holds, as YAML and as JSON."""
    for name in ("plan.yaml", "plan.json"):
        path = file.with_name(name)
        path.write_bytes(data)
        plan, found = check_file(path)
        assert plan is not None or found

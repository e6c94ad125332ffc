"""Keys of flow control: what can be written for one, what is refused and why, and what it becomes."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.flow_keys import Counted, check_key, render_key
from tests.properties.strategies import values

INPUT: dict[str, Any] = {
    "customer": "ada", "n": 7, "half": 0.5, "none": None, "deep": {"b": [1, {"ü": True}], "a": "x"}, "any key": 1, "nul": "a\0b",
}  # fmt: skip


def rendered(text: str, *, bare: bool = True) -> str:
    return render_key(text, input=INPUT, context={"region": "eu"}, params=lambda: {"user": {"id": 3}}, bare=bare)


def refusal(text: str, *, of: Counted = "steps", bare: bool = True) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        check_key(text, of=of, bare=bare, path="concurrency.key")
    error = refused.value
    assert error.context["path"] == "concurrency.key"
    assert error.message.startswith("concurrency.key: ") and len(error.message) < 300 and error.message.isprintable()
    assert error.hint
    return error


# What it becomes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("input.customer", "ada"),
        ("${input.customer}", "ada"),
        ("input.n", "7"),
        ("input.half", "0.5"),
        ("input.none", "null"),
        ("input.deep", '{"b":[1,{"ü":true}],"a":"x"}'),
        ("input.deep.b[0]", "1"),
        ("input['any key']", "1"),
        ("input.nul", "a\0b"),
        ("context.region", "eu"),
        ("context", '{"region":"eu"}'),
        ("params.user.id", "3"),
        ("${params.user.id}@${context.region}/${input.customer}", "3@eu/ada"),
        ("customer ${ input.customer }", "customer ada"),
        ("$${input.customer}", "${input.customer}"),
        ("nightly", "nightly"),
        ("tenant:42", "tenant:42"),
        ("\0 ü 💥", "\0 ü 💥"),
    ],
)
def test_a_key_is_what_its_references_lead_to(text: str, key: str) -> None:
    """Texts stand as they are, everything else as compact JSON; a bare path is a reference; other texts are the same for all."""
    check_key(text, of="steps", bare=True)
    assert rendered(text) == key


def test_a_path_is_bare_only_where_that_is_said() -> None:
    """The key of a rate limit is a text: one that looks like a forgotten reference is refused, other dots are its own."""
    assert rendered("mail.example.org", bare=False) == "mail.example.org"
    for text in ("input.customer", "input", "params[0]", "steps.a.output"):
        error = refusal(text, bare=False)
        assert error.code == "bad_key"
        assert f"${{{text}}}" in (error.hint or "")


def test_params_are_resolved_only_where_they_are_named() -> None:
    """`params` may be costly, or fail: a key without them does not ask."""

    def params() -> Any:
        raise ValidationError("no", code="reference_unresolved")

    assert render_key("input.a", input={"a": 1}, context={}, params=params, bare=True) == "1"
    with pytest.raises(ValidationError):
        render_key("params.a", input={"a": 1}, context={}, params=params, bare=True)


@pytest.mark.parametrize("text", ["input.custmer", "input.customer.id", "input.deep.b[2]", "context.n", "params.user.name"])
def test_a_path_that_leads_nowhere(text: str) -> None:
    """`reference_unresolved`, with what is there instead."""
    with pytest.raises(ValidationError) as refused:
        rendered(text)
    assert refused.value.code == "reference_unresolved"
    assert refused.value.hint


def test_a_key_has_a_longest_length() -> None:
    """What is too long once its references are resolved is `key_too_long`."""
    longest = "x" * limits.key_chars
    assert render_key("input", input=longest, context={}, params=dict, bare=True) == longest
    for value in (longest + "x", ["ü" * limits.key_chars], "x" * 5_000, {"a": "x" * 200_000}):
        with pytest.raises(ValidationError) as refused:
            render_key("input", input=value, context={}, params=dict, bare=True)
        assert refused.value.code == "key_too_long"
        assert len(refused.value.message) < 300


# What cannot be one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_key"),
        ("x" * (limits.key_chars + 1), "bad_key"),
        ("x" * 5_000, "bad_key"),
        ("a\ud800", "bad_key"),
        ("steps.a.output", "bad_key"),
        ("${steps.a.output.id}", "bad_key"),
        ("inputs.customer", "bad_key"),
        ("Input.customer", "bad_key"),
        ("billing.nightly", "bad_key"),
        ("input.a} b", "bad_key"),
        ("input.", "bad_reference"),
        ("input..a", "bad_reference"),
        ("input.a b", "bad_reference"),
        ("input[", "bad_reference"),
        ("input[9999999999]", "bad_reference"),
        ('input["a\\ud800"]', "bad_reference"),
        ("input.ü", "bad_reference"),
        ("input.\0", "bad_reference"),
        ("${input.a", "bad_reference"),
        ("${}", "bad_reference"),
        ("${inptu.a}", "bad_reference"),
        ("${" * 200, "bad_reference"),
        ("input" + "[" * 500, "bad_reference"),
    ],
)
def test_what_is_no_key(text: str, code: str) -> None:
    """Each with its code, a hint, the place where it stands; nothing in the message is long or moves a cursor."""
    assert refusal(text).code == code


def test_a_near_miss_is_named() -> None:
    """A root that is nearly one is suggested."""
    assert "did you mean `params`?" in (refusal("param.user").hint or "")
    assert "did you mean `input`?" in (refusal("${inptu.a}").hint or "")


@pytest.mark.parametrize("text", ["params.user", "${params.user}", "${input.a}${params}"])
def test_an_execution_has_no_params(text: str) -> None:
    """What is said of executions can refer to their input and context alone."""
    check_key(text, of="steps", bare=True)
    assert refusal(text, of="executions").code == "bad_key"


def test_deep_paths() -> None:
    """As deep as the text can be long: found or not, and no recursion."""
    depth = (limits.key_chars - len("input")) // 3
    value: Any = "down there"
    for _ in range(depth):
        value = [value]
    text = "input" + "[0]" * depth
    assert render_key(text, input=value, context={}, params=dict, bare=True) == "down there"
    with pytest.raises(ValidationError):
        render_key(text, input=[[]], context={}, params=dict, bare=True)


_pieces = st.sampled_from(
    ["${", "}", "input", "context", "params", "steps", ".", "[0]", "['a']", '["', "$${", " ", "a", "\0", "ü", "\ud800"]
)


def code_of(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except ValidationError as error:
        return error.code
    return None


@given(st.lists(_pieces, max_size=12).map("".join) | st.text(max_size=40), values, st.booleans())
def test_any_text_is_a_key_or_refused(text: str, value: Any, bare: bool) -> None:
    """Whatever is written: accepted or a ValidationError; what is accepted renders to a text, or says what is missing."""
    refused = code_of(lambda: check_key(text, of="steps", bare=bare))
    outcome = code_of(lambda: render_key(text, input=value, context={"a": value}, params=lambda: [value], bare=bare))
    assert refused in (None, "bad_key", "bad_reference")
    assert outcome == refused if refused else outcome in (None, "reference_unresolved", "key_too_long")

"""References in params: what they mean, what they refuse."""

from typing import Any

import pytest

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.references import Template, compile_params, resolve

OUTPUTS: dict[str, Any] = {
    "facility": {"id": 7, "tags": ["a", "b"], "any key": 1, "at": {"city": "Lyon"}, "none": None, "x}y": "brace"},
    "a-b": "dash",
    "nothing": None,
}


def resolved(params: Any, *, input: Any = None, context: Any = None) -> Any:
    template = compile_params(params)
    assert template is not None
    return resolve(template, input=input, context={} if context is None else context, output_of=OUTPUTS.__getitem__)


def refusal(params: Any, **scope: Any) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        resolved(params, **scope)
    return refused.value


@pytest.mark.parametrize(
    "params", [{}, {"a": 1, "b": ["x", {"c": None}]}, {"a": "$ {input} $}{ $x"}, [], None, 3, "text", {"${input}": 1}]
)
def test_params_without_references_are_constant(params: Any) -> None:
    """Nothing to resolve compiles to None; keys of objects are never references."""
    assert compile_params(params) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${input}", {"a": [1, 2.5], "städte": True}),
        ("${input.a}", [1, 2.5]),
        ("${input.a[1]}", 2.5),
        ("${ input.a }", [1, 2.5]),
        ('${input["städte"]}', True),
        ("${input['städte']}", True),
        ("${context.user}", "ada"),
        ("${context}", {"user": "ada"}),
        ("${steps.facility.output}", OUTPUTS["facility"]),
        ("${steps.facility.output.id}", 7),
        ("${steps.facility.output.tags[0]}", "a"),
        ("${steps.facility.output.at.city}", "Lyon"),
        ('${steps.facility.output["any key"]}', 1),
        ('${steps.facility.output["any\\u0020key"]}', 1),
        ('${steps.facility.output["x}y"]}', "brace"),
        ("${steps.facility.output.none}", None),
        ("${steps.a-b.output}", "dash"),
        ('${steps["a-b"].output}', "dash"),
        ("${steps.nothing.output}", None),
    ],
)
def test_a_whole_string_reference_keeps_its_type(text: str, value: Any) -> None:
    """A string that is exactly one reference becomes the value itself."""
    outcome = resolved({"x": text}, input={"a": [1, 2.5], "städte": True}, context={"user": "ada"})
    assert outcome == {"x": value}
    assert type(outcome["x"]) is type(value)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("id ${input.n}", "id 7"),
        ("${input.s}!", "text!"),
        ("${input.s}${input.s}", "texttext"),
        ("${input.o}.", '{"a":[1,null,true]}.'),
        (" ${input.n}", " 7"),
        ("€ ${input.f}", "€ 0.5"),
        ("${input.z}-", "null-"),
    ],
)
def test_inside_a_longer_string_a_reference_is_rendered(text: str, rendered: str) -> None:
    """Strings as they are, everything else as compact JSON."""
    scope = {"n": 7, "s": "text", "o": {"a": [1, None, True]}, "f": 0.5, "z": None}
    assert resolved([text], input=scope) == [rendered]


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("$${input}", "${input}"),
        ("$${", "${"),
        ("a $${x} ${input} b", "a ${x} 1 b"),
        ("$$${input}", "$${input}"),
        ("$${${input}}", "${1}"),
    ],
)
def test_a_doubled_dollar_stands_for_itself(text: str, literal: str) -> None:
    """`$${` is a literal `${`, and never begins a reference."""
    assert resolved({"x": text}, input=1) == {"x": literal}


def test_whole_params_may_be_one_reference() -> None:
    """`"${input}"` as params hands the input over as it is."""
    template = compile_params("${input}")
    assert template is not None
    assert template.is_reference
    assert resolved("${input}", input={"a": 1}) == {"a": 1}


def test_order_and_constants_survive() -> None:
    """References are replaced in place: the order of keys and everything constant stay, the template is not changed."""
    params = {"b": 1, "a": "${input}", "c": [1, "${input}", {"d": "${input}"}], "e": {"f": [2]}}
    template = compile_params(params)
    assert template is not None
    for value in (5, 6):
        outcome = resolve(template, input=value, context={}, output_of=OUTPUTS.__getitem__)
        assert list(outcome) == ["b", "a", "c", "e"]
        assert outcome == {"b": 1, "a": value, "c": [1, value, {"d": value}], "e": {"f": [2]}}


def test_references_are_listed_once_each() -> None:
    """`Template.references` are distinct and in order of appearance, with root, step and path."""
    template = compile_params({"a": "${steps.s.output.x[0]} ${input.y}", "b": ["${steps.s.output.x[0]}", "${context}"]})
    assert isinstance(template, Template)
    assert [(ref.root, ref.step, ref.path) for ref in template.references] == [
        ("steps", "s", ("x", 0)),
        ("input", None, ("y",)),
        ("context", None, ()),
    ]
    assert str(template.references[0]) == "${steps.s.output.x[0]}"


@pytest.mark.parametrize(
    "text",
    [
        *("${", "${}", "${ }", "${input", "${input.}", "${input..a}", "${.input}", "${input a}", "${input.a b}"),
        *("${inputs}", "${HOME}", "${step.a.output}", "${steps}", "${steps.a}", "${steps.a.result}", "${steps[0].output}"),
        *("${input[-1]}", "${input[a]}", "${input[1}", '${input["a]}', '${input["\\x"]}', "${input.é}", "${input[٣]}", "a ${b"),
        *('${input["\\ud800"]}', "${input[12345678901]}", "${input.a}${", "${${input}}"),
    ],
)
def test_syntax_errors_are_typed(text: str) -> None:
    """What looks like a reference and is none is refused with `bad_reference` and a hint that shows the grammar."""
    with pytest.raises(ValidationError) as refused:
        compile_params({"x": text})
    assert refused.value.code == "bad_reference"
    assert "${steps.NAME.output" in str(refused.value.hint)


def test_a_misspelt_root_gets_a_suggestion() -> None:
    """`${inptu.a}` is answered with `input`."""
    assert "did you mean `input`?" in str(refusal("${inptu.a}").hint)


@pytest.mark.parametrize(
    ("text", "says", "hints"),
    [
        ("${steps.facility.output.ids}", "`ids` in `steps.facility.output`", "did you mean `id`?"),
        ("${steps.facility.output.zzz}", "`zzz`", "has: id, tags, any key"),
        ("${steps.facility.output.tags[2]}", "item 2 in `steps.facility.output.tags`", "list of 2 items"),
        ("${steps.facility.output.tags.x}", "`x`", "write [0]"),
        ("${steps.facility.output.at[0]}", "item 0", "has: city"),
        ("${steps.facility.output.id.x}", "`x` in `steps.facility.output.id`", "is a number"),
        ("${steps.nothing.output.x}", "`x`", "is null"),
        ("${steps.a-b.output[0]}", "item 0", "is a text"),
        ("${steps.unknown.output}", "step `unknown` has no output", ""),
        ("${input.x}", "`x` in `input`", "is null"),
        ("${context.x}", "`x` in `context`", "is an empty object"),
        ("text ${context.x}", "`x` in `context`", "is an empty object"),
    ],
)
def test_a_path_that_leads_nowhere_is_typed(text: str, says: str, hints: str) -> None:
    """At run time a missing path is `reference_unresolved`; the error names the path and what exists there."""
    error = refusal({"x": text})
    assert error.code == "reference_unresolved"
    assert says in error.message
    assert hints in (error.hint or "")


def test_errors_are_bounded() -> None:
    """However many and however long the keys are, the message and its hint stay short."""
    error = refusal("${input.x}", input={"k" * 10_000 + str(number): 1 for number in range(1_000)})
    assert len(error.message) + len(error.hint or "") < 2_000


def test_depth_is_bounded() -> None:
    """Params at `limits.nesting_depth` compile and resolve; one level more is `too_deep`, not a RecursionError."""

    def nested(depth: int) -> Any:
        value: Any = "${input}"
        for _ in range(depth):
            value = [value]
        return value

    assert str(resolved(nested(limits.nesting_depth), input=1)).count("[") == limits.nesting_depth
    for depth in (limits.nesting_depth + 1, 50_000):
        with pytest.raises(ValidationError) as refused:
            compile_params(nested(depth))
        assert refused.value.code == "too_deep"


@pytest.mark.parametrize("part", ["${input}", "x ${input}"])
def test_references_cannot_blow_params_up(part: str) -> None:
    """Many uses of one reference to a large value are refused before the outcome is built: `params_too_large`."""
    assert refusal([part] * 5_000, input=["x" * 100_000] * 10).code == "params_too_large"


def test_what_is_taken_over_cannot_blow_params_up() -> None:
    """Each use of all that an object has is a copy of it: they are counted like any other use."""
    large = {f"key_{number}": number for number in range(20_000)}
    assert refusal([{"...": "${input}"}] * 5_000, input=large).code == "params_too_large"

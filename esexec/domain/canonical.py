"""What a plan is called and how it is stored: SHA-256 over RFC 8785 JSON, and msgspec's JSON.

Invariant: two plans that do the same have the same id. Descriptions and metadata say nothing about what is done; a
setting that is written out with "nothing said" is the same as one left out; 2 and 2.0 are one number.
"""

import hashlib
from typing import Any

import msgspec
import rfc8785

from esexec.domain.errors import PlanInvalid
from esexec.domain.explain import shown
from esexec.domain.plan import Plan

_SAYS_NOTHING = ("description", "metadata")


def plan_id(plan: Plan) -> str:
    """The plan's identity: 64 hexadecimal digits.

    Raises PlanInvalid: `not_canonical` for what RFC 8785 cannot hold (integers beyond 2^53, NaN, lone surrogates), `not_json`
    for objects that have no JSON form.
    """
    document = _document(plan)
    steps = document["steps"]
    try:
        for part in (document, *steps):
            for field in _SAYS_NOTHING:
                # What does not count must still be storable: JSON would quietly turn NaN into null.
                if (aside := part.pop(field, None)) is not None:
                    rfc8785.dumps(aside)
        if not document.get("config"):
            document.pop("config", None)
        return hashlib.sha256(rfc8785.dumps(document)).hexdigest()
    except ValueError as error:
        path = _culprit(_document(plan))
        raise PlanInvalid(
            f"{path}: {shown(str(error))}",
            code="not_canonical",
            hint="numbers within ±(2^53 - 1) and finite, valid Unicode; longer numbers as text",
            path=path,
        ) from None


def canonical_bytes(plan: Plan) -> bytes:
    """The whole plan as it is stored: compact JSON, defaults left out.

    Raises PlanInvalid `not_json`.
    """
    try:
        return msgspec.json.encode(plan)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(error) from None


def _document(plan: Plan) -> dict[str, Any]:
    try:
        document: dict[str, Any] = msgspec.to_builtins(plan, str_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(error) from None
    return document


def _not_json(error: Exception) -> PlanInvalid:
    return PlanInvalid(f"the plan holds something that JSON cannot: {shown(str(error))}", code="not_json")


def _culprit(document: dict[str, Any]) -> str:
    """The path of the first part that cannot be canonicalised: only looked for once there is one."""
    for index, step in enumerate(document["steps"]):
        for field, value in step.items():
            if not _is_canonical(value):
                return f"steps[{index}].{field}"
    return next((field for field, value in document.items() if field != "steps" and not _is_canonical(value)), "plan")


def _is_canonical(value: object) -> bool:
    try:
        rfc8785.dumps(value)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True

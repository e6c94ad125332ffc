"""What a client may be told, by the situation of the execution: written by hand from the documents, held against every answer.

`done`: accepted, and something followed. `idle`: accepted, and there was nothing to change. `same`: another command of the same
meaning was applied. Everything else is the code of a refusal.
"""

from typing import Any, NamedTuple

from tests.simulation.law import Law

ENDED = ("completed", "failed", "partial", "cancelled", "rolled_back")
SITUATIONS = (
    "absent",
    "scheduled",
    "running",
    "recovering",
    "paused",
    "failing",
    "cancelling",
    "rolling_back",
    "rolling_back_paused",
    *ENDED,
)
_UNDO = {"done", "nothing_to_compensate"}
_RETRY = {"done", "unknown_step", "nothing_to_retry"}
_OF_FORKS = {"bad_execution_id", "same", "conflict"}
"""What the new id of a retry as a new execution can come to, whatever the execution is."""


def _in(situations: tuple[str, ...], *answers: str) -> dict[str, set[str]]:
    return {situation: set(answers) for situation in situations}


TABLE: dict[str, dict[str, set[str]]] = {
    "start": {},
    "cancel": {"absent": {"not_found"}, "cancelling": {"same"}} | _in(ENDED, "idle"),
    "pause": {
        "absent": {"not_found"},
        "paused": {"idle"},
        "rolling_back_paused": {"idle"},
        "cancelling": {"ending"},
    }
    | _in(ENDED, "ended"),
    "resume": {"absent": {"not_found"}, "paused": {"done"}, "rolling_back_paused": {"done"}} | _in(ENDED, "ended"),
    "retry": {"absent": {"not_found"}, "completed": {"nothing_to_retry"}} | _in(ENDED[1:], *_RETRY),
    "rollback": {"absent": {"not_found"}} | _in(ENDED, *_UNDO),
    "checkpoint": {
        "absent": {"not_found"},
        "cancelling": {"ending"},
        "rolling_back": {"rolling_back"},
        "rolling_back_paused": {"rolling_back"},
    }
    | _in(ENDED, "ended"),
    "restore": {
        "absent": {"not_found"},
        "scheduled": {"not_started", "unknown_checkpoint"},
        "cancelling": {"ending", "not_started", "unknown_checkpoint"},
        "rolling_back": {"rolling_back", "unknown_checkpoint"},
        "rolling_back_paused": {"rolling_back", "unknown_checkpoint"},
    }
    | _in(("paused", "failing", "failed", "cancelled"), "done", "not_started", "unknown_checkpoint"),
}
_ELSE: dict[str, set[str]] = {
    "start": {"same", "conflict"},
    "cancel": {"done"},
    "pause": {"done"},
    "resume": {"idle"},
    "retry": {"not_ended"},
    "rollback": {"not_ended"},
    "checkpoint": {"done", "too_many_checkpoints"},
    "restore": {"done", "unknown_checkpoint"},
}
"""In every situation that the table does not name."""
_BAD_STARTS = {"unknown_dependency", "duplicate_step", "unknown_plan", "plan_not_ready", "invalid_time"}
"""A plan or a time that cannot be, whatever the execution is."""
NEVER_TOO_LATE = ("checkpoint", "retry as_new")
"""What sets no course is not superseded by what does."""


def allowed(verb: str, situation: str) -> set[str]:
    """What may be answered there."""
    if verb == "retry as_new":
        return allowed("retry", situation) | _OF_FORKS
    if verb == "start":
        return {"done", *_BAD_STARTS} if situation == "absent" else _ELSE["start"] | _BAD_STARTS
    return TABLE[verb].get(situation, _ELSE[verb])


def told(answer: Any) -> str:
    """An answer in the words of the table."""
    if answer.status == "accepted":
        return "done" if answer.effective else "idle"
    if answer.status == "refused":
        return answer.error.code if answer.error is not None else "refused"
    return {"duplicate": "same", "superseded": "superseded"}[answer.status]


def objection(law: Law, verb: str, answer: Any, *, sent_at: int, told_at: int, time: str) -> str | None:
    """Why this answer, judged when the history had `sent_at` to `told_at` commits, was not to be given; None if it was."""
    what, applied = told(answer), any(id == answer.command_id for n, id, *_ in law.causes if n <= told_at)
    if what in ("done", "same") and applied:
        return None
    if what == "done":
        return f"{verb} of {law.entity} was granted, and is not in the history"
    if what == "superseded":
        later = any(other >= time and turned for n, _, other, turned in law.causes if n <= told_at)
        return None if later and verb not in NEVER_TOO_LATE else f"{verb} of {law.entity} was superseded by nothing"
    if answer.original_id is not None:
        return None  # it is about another execution, to which its key belongs
    meanwhile = {situation for n, situation in law.situations if sent_at <= n <= told_at}
    meanwhile |= {[situation for n, situation in law.situations if n <= sent_at][-1]}
    if any(what in allowed(verb, situation) for situation in meanwhile):
        return None
    return f"{verb} of {law.entity} was answered {what!r}, while it was {sorted(meanwhile)}"


class Wish(NamedTuple):
    """A command that would set the course of an execution, where it stands in COMMANDS, and the first answer to it, if there was
    one. `sent_at`, `told_at`: how many commits there were."""

    place: int
    verb: str
    id: str
    sent_at: int
    answer: Any
    told_at: int


def out_of_turn(law: Law, wishes: list[Wish]) -> str | None:
    """Why these were not decided in the order in which they were stored; None if they may have been.

    What was applied stands in a commit; what was not was judged in a situation that came behind all that was decided before.
    """
    applied = {id: n for n, id, *_ in law.causes}
    moments = law.situations
    low, before = 0, ""
    for wish in sorted(wishes):
        if wish.id in applied:
            own = [at for at, (n, _) in enumerate(moments) if n == applied[wish.id]]
        elif wish.answer is None or wish.answer.status == "superseded" or wish.answer.original_id is not None:
            continue
        else:
            first = max(at for at, (n, _) in enumerate(moments) if n <= wish.sent_at)
            last = max(at for at, (n, _) in enumerate(moments) if n <= wish.told_at)
            own = [at for at in range(first, last + 1) if told(wish.answer) in allowed(wish.verb, moments[at][1])]
        if not own or own[-1] < low:
            return f"{law.entity}: {wish.verb} {wish.id} was decided before {before}, which was stored before it"
        low, before = max(low, next(at for at in own if at >= low) if wish.id not in applied else own[0]), wish.id
    return None

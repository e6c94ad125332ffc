"""What an attempt, or an execution, must be granted before it begins: whom it asks, in which order, and what an answer means.

An attempt that has to ask is open and held: nobody has it, and nobody gets it, until it was granted all that it needs. It
asks one after the other (`requests.Gate`). A grant that nobody waits for any more is given back by whoever is told of it.
"""

from datetime import datetime

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.advance import advance, set_deadline
from esexec.domain.attempts import fail_attempt, parse_attempt
from esexec.domain.decision import APPLIED, Decision, Verdict
from esexec.domain.sharing import requests as s


def decide_grant(decision: Decision, answer: s.Answer, step_id: str, attempt_id: str, time: datetime) -> Verdict:
    """Record what an entity answered to the attempt `attempt_id` (`<run>-<attempt>`) of a step, and what follows."""
    state = decision.state
    if not state.exists:
        return Verdict("unknown")
    run, attempt = parse_attempt(attempt_id)
    whole = step_id == s.WHOLE
    verdict = _of_execution(decision, answer, run) if whole else _of_attempt(decision, answer, step_id, run, attempt)
    if verdict is APPLIED:
        decision.cause(cause_of(answer, step_id, attempt_id), time)
        advance(decision)
    return verdict


def cause_of(answer: s.Answer, step_id: str, attempt_id: str) -> str:
    """What a commit that was decided upon this says of it."""
    return f"{answer.__struct_config__.tag}/{answer.gate}/{step_id}/{attempt_id}"


def _of_attempt(decision: Decision, answer: s.Answer, step_id: str, run: int, attempt: int) -> Verdict:
    state = decision.state
    index = state.graph.index.get(step_id)
    if index is None or run > state.run:
        return Verdict("unknown")
    step = state.steps[index]
    if run == state.run and attempt > step.attempt:
        return Verdict("unknown")
    gate = step.gate
    if run < state.run or attempt < step.attempt or not step.open or gate is None:
        return Verdict("stale")
    if answer.gate not in gate.asks:
        n = gate.granted.get(answer.gate, 0)
        return Verdict("repeated", n=n) if isinstance(answer, s.Granted) and n else Verdict("ineffective")
    match answer:
        case s.Granted():
            if answer.gate == "resources":
                decision.emit(e.ResourceAllocated(step=step_id, attempt=attempt, run=run, resources=answer.resources))
            else:
                decision.emit(e.TaskGranted(step=step_id, attempt=attempt, run=run, by=answer.gate, entity=answer.entity))
        case s.Denied():
            fail_attempt(decision, index, answer.error)
        case s.Waiting() if gate.waiting and gate.until == answer.until:
            return Verdict("ineffective")
        case s.Waiting() if answer.gate == "rate_limit":
            decision.emit(
                e.TaskRateLimited(step=step_id, attempt=attempt, run=run, entity=answer.entity, next_retry_at=answer.until)
            )
        case s.Waiting():
            decision.emit(
                e.TaskWaiting(step=step_id, attempt=attempt, run=run, by=answer.gate, entity=answer.entity, ahead=answer.ahead)
            )
    return APPLIED


def _of_execution(decision: Decision, answer: s.Answer, run: int) -> Verdict:
    state = decision.state
    slot = state.slot
    if slot is None or slot.run != run or state.ended:
        return Verdict("stale" if run <= state.run else "unknown")
    if slot.granted:
        return Verdict("repeated", n=slot.granted) if isinstance(answer, s.Granted) else Verdict("ineffective")
    match answer:
        case s.Granted():
            decision.emit(e.ExecutionGranted(entity=answer.entity, run=run))
            if state.started_at is not None:  # in the first run it is set when that begins
                set_deadline(decision)
        case s.Denied():
            if state.cancel:
                return Verdict("ineffective")
            reason, code = answer.error.message, answer.error.code
            decision.emit(e.ExecutionCancelRequested(grace_ms=limits.cancel_grace_ms, reason=reason, code=code))
        case s.Waiting():
            return Verdict("ineffective")
    return APPLIED

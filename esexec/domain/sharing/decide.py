"""One commit of an entity that executions share, in the making: what follows from what was asked and given back.

Messages are taken one after the other (`acquire`, `release`, `due`, a client's command); `settle` then grants what can be
granted, in the order of turns, to those who waited and to those who just came. Each message's verdict says how it is let go.
Nothing is granted outside `settle`, and what cannot be granted is there queued, or denied, as its ask wants it.

A commit has so much room (`full`). A message for which there is none comes again (`later`); what `settle` has to leave is left to
a wake-up at once (`fold.has_more`). Whether one that does not want to wait can be granted is then not known yet, so it is queued.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from math import ceil
from typing import Literal, NamedTuple

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Cause
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.explain import shown
from esexec.domain.flow import Resource
from esexec.domain.flow_rules import check_pool, check_requirements
from esexec.domain.sharing import limiter, pools, slots
from esexec.domain.sharing.fitting import unavailable
from esexec.domain.sharing.fold import begin, evolve
from esexec.domain.sharing.requests import (
    Acquire,
    Ask,
    AskForResources,
    AskForSlot,
    AskToBegin,
    Denied,
    denied,
    entity_of,
    waits,
)
from esexec.domain.sharing.state import Grant, Request, SharedState, turn


class Verdict(NamedTuple):
    """What became of a message.

    done: it is in this commit, or there is nothing left to do. known: it was asked before, and is to be told again. denied,
    refused: `error` says why, to a request and to a command. later: there is no place for it now.
    """

    kind: Literal["done", "known", "denied", "refused", "later"]
    error: ErrorInfo | None = None
    effective: bool = True


DONE, KNOWN, LATER = Verdict("done"), Verdict("known"), Verdict("later")
NOTHING = Verdict("done", effective=False)
_ENVELOPE = 300
"""Bytes of an event beside its ask, at most."""


class SharedDecision:
    """See the module. `now`: the server's time; the commit's is never before the entity's last. The state is consumed.

    `spared`: a lease has ended, and goes on for now.
    """

    __slots__ = (
        "_asked", "_bytes", "_impatient", "_new", "causes", "denied", "events", "first_version", "spared", "state", "time",
    )  # fmt: skip

    def __init__(self, state: SharedState, now: datetime) -> None:
        self.state = state
        self.time = now if state.time is None or now > state.time else state.time
        self.events: list[e.Event] = []
        self.causes: list[Cause] = []
        self.first_version = state.version + 1
        self.denied: dict[str, Denied] = {}
        """Requests of this decision that are not granted and do not wait, and leave no trace in the history."""
        self._new: dict[str, Request] = {}
        self._impatient: set[str] = set()
        self.spared = False
        self._asked = 0
        self._bytes = 0
        """Of the events, and of those that the new requests will lead to."""

    @property
    def full(self) -> bool:
        """Whether there is no room for a further event: each new request will need one."""
        return len(self.events) + len(self._new) >= limits.events_per_commit or self._bytes > limits.commit_bytes

    def emit(self, event: e.Event) -> None:
        if not self.events:
            begin(self.state, self.state.n + 1, self.time)
        self.events.append(event)
        self._bytes += len(msgspec.json.encode(event))
        evolve(self.state, event)

    # Messages ------------------------------------------------------------------------------------------------------------

    def acquire(self, request_id: str, asked: Acquire) -> Verdict:
        """Somebody asks; whether it is granted is told by `settle`."""
        state = self.state
        if state.knows(request_id) or request_id in self._new:
            return KNOWN
        if entity_of(asked.ask) != state.entity:
            hint = "the hash of its key names the entity; see docs/reference/protocol.md"
            return Verdict("denied", _invalid("wrong_entity", f"{state.entity} does not decide upon that", hint))
        at = min(asked.at or self.time, self.time)
        request = Request(request_id, self.first_version + self._asked, asked.ask, at, asked.priority)
        crowded = len(state.waiting) + len(self._new) >= limits.requests_waiting
        if self.full or (crowded and self._stays(request)):
            return LATER
        self._asked += 1
        self._new[request_id] = request
        self._bytes += _size(request)
        return DONE

    def _take(self, request_id: str) -> Request | None:
        """A new request that is one no more."""
        request = self._new.pop(request_id, None)
        if request is not None:
            self._bytes -= _size(request)
        return request

    def release(self, request_id: str) -> Verdict:
        """Who asked under this id has no need of it any more."""
        if self._take(request_id) is not None:
            return DONE
        held = request_id in self.state.held
        if not held and request_id not in self.state.names:
            return NOTHING
        if self.full:
            return LATER
        self.emit(e.GrantReleased(request_id=request_id) if held else e.RequestDropped(request_id=request_id))
        return DONE

    def due(self, unread: datetime | None = None) -> Verdict:
        """It is time to look: leases that ended are given back.

        `unread`: since when a client's word that renews a lease has not been read. It may be about any; so those go on that had
        not ended by then.
        """
        for grant in [grant for grant in self.state.held.values() if grant.until is not None and grant.until <= self.time]:
            if unread is not None and grant.until is not None and unread <= grant.until:
                self.spared = True
                continue
            if self.full:
                return LATER
            self.emit(e.GrantReleased(request_id=grant.id, expired=True))
        return DONE

    def command(self, command: c.PoolsCommand) -> Verdict:
        """What a client wishes of the pools."""
        if command.id in self.state.applied:
            return KNOWN
        if self.full:
            return LATER
        match command:
            case c.DeclarePool():
                return self._declare(command)
            case c.RemovePool():
                return self._remove(command)
            case c.AllocateResources():
                return self._allocate(command)
            case c.RenewResources():
                return self._renew(command)
            case c.ReleaseResources():
                return self._give_back(command)

    def cause(self, command_id: str, time: datetime, actor: str | None = None) -> None:
        """The commit is made for this command as well, which `actor` gave."""
        self.causes.append(Cause(command_id, time, actor))

    # Settling ------------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Grant what can be granted, and queue or deny the rest of what is new."""
        self._drop_hopeless()
        settled = False
        while not settled:  # who is denied or replaced leaves room, or stood in the way of others
            all_looked_at = self._grant()
            settled = all_looked_at and self._drop_impatient()
            for request in list(self._new.values()):
                self._keep_waiting(request, all_looked_at)
            settled = not self._drop_hopeless() and settled
            if self.full:
                break

    def _drop_impatient(self) -> bool:
        """Who does not want to wait, and had to until it was known whether there is room. Whether all of them are gone."""
        for request in [one for one in self.state.waiting if not waits(one.ask)]:
            if self.full:
                return False
            self._refuse(request, self._why_not(request.ask))
        return True

    def _grant(self) -> bool:
        """Grant what can be granted, in turn. Whether there was room for all of it."""
        for request, found in self._in_turn(sorted([*self.state.waiting, *self._new.values()], key=turn)):
            is_new = request.id in self._new
            if self.full and not (is_new and self._bytes <= limits.commit_bytes):
                return False
            if isinstance(found, ErrorInfo):
                self._refuse(request, found)
                continue
            until = None
            if isinstance(request.ask, AskForResources) and request.ask.lease_ms:
                until = self.time + timedelta(milliseconds=request.ask.lease_ms)
            self._take(request.id)
            ask, at = (request.ask, self._before(request)) if is_new else (None, None)
            self.emit(e.RequestGranted(request_id=request.id, ask=ask, at=at, resources=found, until=until))
        return True

    def _in_turn(self, requests: list[Request]) -> Iterator[tuple[Request, tuple[Resource, ...] | ErrorInfo]]:
        """Who can be granted now, in turn, or never; each is dealt with before the next is asked for."""
        if not requests:
            return
        match requests[0].ask:
            case AskForResources():
                yield from pools.in_turn(self.state, requests, self._stays)
            case AskToBegin():
                yield from ((request, ()) for request in limiter.in_turn(self.state, requests, self.time, self._stays))
            case AskForSlot():
                yield from ((request, ()) for request in slots.in_turn(self.state, requests, self._stays))

    def _stays(self, request: Request) -> bool:
        """Whether it waits if there is no room for it now."""
        return waits(request.ask) and request.id not in self._impatient

    def _drop_hopeless(self) -> bool:
        """Whose place another one of its key has taken, and who waits for what no pools have any more; also those for whom an
        earlier commit had no room. Whether there were any."""
        found = False
        for request, why in self._hopeless():
            found = True
            if self.full:
                break
            self._refuse(request, why)
        return found

    def _hopeless(self) -> Iterator[tuple[Request, ErrorInfo]]:
        if not self.state.waiting:
            return
        match self.state.waiting[0].ask:
            case AskForSlot():
                yield from ((request, _replaced(other)) for request, other in slots.replaced(self.state))
            case AskForResources():
                yield from pools.in_vain(self.state)

    def _keep_waiting(self, request: Request, all_looked_at: bool) -> None:
        """It is new, and was not granted."""
        ask = request.ask
        why = self._no_resources(request, ask) if isinstance(ask, AskForResources) else None
        if why is not None or (all_looked_at and not waits(ask)):
            self._refuse(request, why or self._why_not(ask))
        else:
            self._take(request.id)
            at = self._before(request)
            self.emit(e.RequestQueued(request_id=request.id, ask=ask, priority=request.priority, at=at))

    def _before(self, request: Request) -> datetime | None:
        """When it asked, if that was before this commit."""
        return request.at if request.at < self.time else None

    def _refuse(self, request: Request, error: ErrorInfo) -> None:
        """It will not be granted. Who has just come leaves no trace."""
        skipped = isinstance(request.ask, AskForSlot)
        if self._take(request.id) is None:
            self.emit(e.RequestDropped(request_id=request.id, error=error, skipped=skipped))
        else:
            self.denied[request.id] = denied(self.state.entity, error, skipped=skipped)

    def _why_not(self, ask: Ask) -> ErrorInfo:
        """Why one that does not wait is not granted now."""
        match ask:
            case AskToBegin():
                return _limited(self.state, ask, self.time)
            case AskForSlot():
                return _taken(self.state, ask)
            case AskForResources():
                return unavailable("what is asked for is not free now", "wait for it, or ask later")

    def _no_resources(self, request: Request, ask: AskForResources) -> ErrorInfo | None:
        why = pools.impossible(self.state, ask)
        return self._why_not(ask) if why is None and request.id in self._impatient else why

    # Pools -----------------------------------------------------------------------------------------------------------------

    def _declare(self, command: c.DeclarePool) -> Verdict:
        if (problem := _problem(lambda: check_pool(command.pool, "pool"))) is not None:
            return Verdict("refused", problem, effective=False)
        pool, known = command.pool, self.state.pools.get(command.pool.id)
        if known == pool:
            return NOTHING
        if known is None and len(self.state.pools) >= limits.pools:
            hint = f"at most {limits.pools} (limits.pools); remove one that is not needed"
            return _refused("too_many_pools", f"the namespace has {len(self.state.pools)} pools", hint)
        self.emit(e.PoolDeclared(pool=pool))
        return DONE

    def _remove(self, command: c.RemovePool) -> Verdict:
        pool_id = command.pool_id
        if pool_id not in self.state.pools:
            return NOTHING
        users = [grant.id for grant in self.state.held.values() if any(one.pool == pool_id for one in grant.resources)]
        if users:
            message = f"{len(users)} hold something of pool {pool_id}, for instance {users[0]}"
            return _refused("pool_in_use", message, "wait until it is released, or make it smaller")
        self.emit(e.PoolRemoved(pool_id=pool_id))
        return DONE

    def _allocate(self, command: c.AllocateResources) -> Verdict:
        if (problem := _problem(lambda: check_requirements(command.requirements, "requirements"))) is not None:
            return Verdict("refused", problem, effective=False)
        priority = max(requirement.priority for requirement in command.requirements)
        if not command.wait:
            self._impatient.add(command.id)
        ask = AskForResources(requirements=command.requirements, lease_ms=command.lease_ms)
        return self.acquire(command.id, Acquire(ask=ask, priority=priority))

    def _renew(self, command: c.RenewResources) -> Verdict:
        grant = self.state.held.get(command.allocation)
        if grant is None or not isinstance(grant.ask, AskForResources) or not grant.ask.lease_ms:
            hint = "its lease has ended, or it was released: allocate again"
            return _refused("unknown_allocation", f"{shown(command.allocation)} holds no resources on a lease", hint)
        until = self.time + timedelta(milliseconds=grant.ask.lease_ms)
        self.emit(e.LeaseRenewed(request_id=grant.id, until=until))
        return DONE

    def _give_back(self, command: c.ReleaseResources) -> Verdict:
        done = NOTHING if command.allocation is None else self.release(command.allocation)
        wanted = set(command.resource_ids)
        for grant in list(self.state.held.values()) if wanted else ():
            theirs = tuple(resource.id for resource in grant.resources if resource.id in wanted)
            if theirs and self.full:
                return LATER  # it comes again, and finds only what is left
            if theirs:
                self.emit(e.GrantReleased(request_id=grant.id, resources=theirs if len(theirs) < len(grant.resources) else ()))
                done = DONE
        return done


def _problem(check: Callable[[], None]) -> ErrorInfo | None:
    try:
        check()
    except ValidationError as error:
        return error.info
    return None


def _size(request: Request) -> int:
    """Bytes of the event that it will lead to, at most, but for the resources that it may be given."""
    return _ENVELOPE + len(msgspec.json.encode(request.ask))


def _refused(code: str, message: str, hint: str) -> Verdict:
    return Verdict("refused", _invalid(code, message, hint), effective=False)


def _invalid(code: str, message: str, hint: str) -> ErrorInfo:
    return ErrorInfo(type="validation_error", code=code, message=message, hint=hint)


def _limited(state: SharedState, ask: AskToBegin, now: datetime) -> ErrorInfo:
    free_at = limiter.room_at(state, ask, len(state.waiting))
    retry_after = max(0, ceil((free_at - now).total_seconds() * 1000)) if free_at is not None else None
    return ErrorInfo(
        type="execution_error",
        code="rate_limited",
        message=f"{ask.max_executions} began within {ask.window_ms} ms: there is no room for {shown(ask.key)}",
        hint='on_limit="wait" lets it wait for its turn',
        retryable=False,
        retry_after_ms=retry_after,
    )


def _taken(state: SharedState, ask: AskForSlot) -> ErrorInfo:
    holders = slots.holders(state, ask.key)
    if holders:
        message = f"{holders[0].id.split('/')[0]} runs with the key {shown(ask.key)}"
    else:
        message = f"there is no room for the key {shown(ask.key)}: {len(state.held)} of {ask.total or ask.limit} run"
    return ErrorInfo(
        type="execution_error",
        code="skipped",
        message=message,
        hint='policy="queue" lets it wait for its turn',
        retryable=False,
    )


def _replaced(by: Request | Grant) -> ErrorInfo:
    return ErrorInfo(
        type="execution_error",
        code="replaced",
        message=f"{by.id.split('/')[0]} took its place",
        hint='policy="queue" lets both run, one after the other',
        retryable=False,
    )

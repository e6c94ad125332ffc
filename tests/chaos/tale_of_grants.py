"""What may be granted when, told a second time: the histories of what executions share. Imports nothing of esexec.

`tell` says what is wrong with the next event of such an entity: more in a window than its limit, more at once with a key than
that allows, more of a pool than it has; what is granted or given back by who did not ask, or twice.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

OF_SHARED = frozenset(
    {"request_queued", "request_granted", "request_dropped", "grant_released", "lease_renewed", "pool_declared", "pool_removed"}
)
SHARING = ("_limit-", "_slots-", "_pools")


@dataclass
class TaleOfGrants:
    """One entity. `granted`: how often of each kind."""

    entity: str
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    resources: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    pools: dict[str, float] = field(default_factory=dict)
    times: dict[str, list[datetime]] = field(default_factory=dict)
    ever: Counter[str] = field(default_factory=Counter)
    """How often each request was granted."""
    fullest: float = 0.0
    """How close it came to what it allows, 1.0: there was no room for more."""

    def tell(self, event: dict[str, Any], time: datetime) -> str | None:
        """The next event, of a commit of this time."""
        kind, who = event["type"], event.get("request_id", "")
        match kind:
            case "request_queued":
                again = who in self.asked
                self.asked[who] = event["ask"]
                return f"{who} was queued twice" if again else None
            case "request_granted":
                ask = event.get("ask") or self.asked.pop(who, None)
                return f"{who} was granted what it did not ask for" if ask is None else self._grant(who, ask, event, time)
            case "request_dropped":
                self.asked.pop(who, None)
            case "grant_released":
                return self._release(who, event.get("resources", ()))
            case "pool_declared":
                self.pools[event["pool"]["id"]] = event["pool"]["capacity"]
        return None

    def _grant(self, who: str, ask: dict[str, Any], event: dict[str, Any], time: datetime) -> str | None:
        self.ever[who] += 1
        again = who in self.held
        match ask["type"]:
            case "rate_limit":
                return self._begins(who, ask, time)
            case "concurrency":
                self.held[who] = ask
                return f"{who} was granted twice" if again else self._at_once(ask)
            case _:
                self.held[who] = ask
                self.resources[who] = {one["id"]: one for one in event["resources"]}
                return f"{who} was granted twice" if again else self._sold()

    def _begins(self, who: str, ask: dict[str, Any], time: datetime) -> str | None:
        times = self.times.setdefault(ask["key"], [])
        if times and time < times[-1]:
            return f"{who} was granted at {time}, after one at {times[-1]}"
        times.append(time)
        window = timedelta(milliseconds=ask["window_ms"])
        within = sum(time - one < window for one in times)
        self._came(within, ask["max_executions"])
        return f"{within} were granted within {window}, {ask}" if within > ask["max_executions"] else None

    def _at_once(self, ask: dict[str, Any]) -> str | None:
        same = sum(one["key"] == ask["key"] for one in self.held.values())
        self._came(same, ask["limit"])
        total = ask.get("total")
        if same > ask["limit"] or (total is not None and len(self.held) > total):
            return f"{same} of {len(self.held)} hold {ask}"
        return None

    def _sold(self) -> str | None:
        sold = Counter[str]()
        for resources in self.resources.values():
            for one in resources.values():
                sold[one["pool"]] += one["amount"]
        for pool, amount in sold.items():
            self._came(amount, self.pools.get(pool, 0.0))
        over = {pool: amount for pool, amount in sold.items() if amount > self.pools.get(pool, 0.0) + 1e-9}
        return f"of {self.pools} these are held: {over}" if over else None

    def _came(self, there: float, most: float) -> None:
        self.fullest = max(self.fullest, there / most if most else 2.0)

    def _release(self, who: str, resources: tuple[str, ...]) -> str | None:
        if who not in self.held:
            return f"{who} gave back what it did not hold"
        for one in resources:
            if self.resources[who].pop(one, None) is None:
                return f"{who} gave back {one}, which it did not hold"
        if not resources or not self.resources[who]:
            del self.held[who]
            self.resources.pop(who, None)
        return None


def tales_of(commits: list[dict[str, Any]]) -> tuple[dict[str, TaleOfGrants], list[str]]:
    """The tales of all shared entities in these commits of a log, in any order; and what is wrong with them. Where a commit was
    compacted before anybody read it the tale breaks off: it is not in the answer."""
    tales: dict[str, TaleOfGrants] = {}
    problems = []
    told: dict[tuple[str, int], dict[str, Any]] = {(one["execution_id"], one["n"]): one for one in commits}
    for (entity, n), commit in sorted(told.items()):
        if not entity.startswith(SHARING) or (n > 1 and (entity, n - 1) not in told) or (n > 1 and entity not in tales):
            tales.pop(entity, None)
            continue
        tale = tales.setdefault(entity, TaleOfGrants(entity))
        time = datetime.fromisoformat(commit["time"])
        for event in commit["events"]:
            if (problem := tale.tell(event, time)) is not None:
                problems.append(f"{entity} commit {commit['n']}: {problem}")
    return tales, problems


def left_behind(tales: dict[str, TaleOfGrants]) -> list[str]:
    """Who waits and who holds, once all has ended: nobody."""
    waits = [f"{who} waits for {tale.entity}" for tale in tales.values() for who in tale.asked]
    return waits + [f"{who} holds {tale.entity}" for tale in tales.values() for who in tale.held]

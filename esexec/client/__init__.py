"""The client. Read in this order: `client` → `handle` → `commands` (what travels) → `feed` (what is heard)."""

from esexec.client.alerts import Alerts
from esexec.client.chain import ChainResult, Interrupt, Link, LinkLike, link
from esexec.client.checkpoints import Checkpoint, Checkpoints
from esexec.client.client import Client
from esexec.client.closures import AsyncClosure, Closure
from esexec.client.commands import MapOptions, Startable, StartOptions
from esexec.client.dead_letters import DeadLetter, DeadLetters, Redriven
from esexec.client.executions import Executions, TasksOfExecutions
from esexec.client.handle import Handle, Starting
from esexec.client.monitor import Monitor
from esexec.client.monitoring import Monitoring
from esexec.client.plans import KeptPlan, Planner, Plans
from esexec.client.resources import PoolUse, Resources
from esexec.client.strategies import Strategies
from esexec.client.subscriptions import Callback, Subscription

__all__ = [
    "Alerts",
    "AsyncClosure",
    "Callback",
    "ChainResult",
    "Checkpoint",
    "Checkpoints",
    "Client",
    "Closure",
    "DeadLetter",
    "DeadLetters",
    "Executions",
    "Handle",
    "Interrupt",
    "KeptPlan",
    "Link",
    "LinkLike",
    "MapOptions",
    "Monitor",
    "Monitoring",
    "Planner",
    "Plans",
    "PoolUse",
    "Redriven",
    "Resources",
    "StartOptions",
    "Startable",
    "Starting",
    "Strategies",
    "Subscription",
    "TasksOfExecutions",
    "link",
]

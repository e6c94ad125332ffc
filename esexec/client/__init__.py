"""The client. Read in this order: `client` → `handle` → `commands` (what travels) → `feed` (what is heard)."""

from esexec.client.checkpoints import Checkpoint, Checkpoints
from esexec.client.client import Client
from esexec.client.commands import Startable, StartOptions
from esexec.client.executions import Executions, TasksOfExecutions
from esexec.client.handle import Handle
from esexec.client.plans import KeptPlan, Planner, Plans
from esexec.client.resources import PoolUse, Resources
from esexec.client.strategies import Strategies

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Client",
    "Executions",
    "Handle",
    "KeptPlan",
    "Planner",
    "Plans",
    "PoolUse",
    "Resources",
    "StartOptions",
    "Startable",
    "Strategies",
    "TasksOfExecutions",
]

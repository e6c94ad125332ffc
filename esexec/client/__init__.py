"""The client. Read in this order: `client` → `handle` → `commands` (what travels) → `feed` (what is heard)."""

from esexec.client.checkpoints import Checkpoint, Checkpoints
from esexec.client.client import Client
from esexec.client.commands import Startable, StartOptions
from esexec.client.executions import Executions, TasksOfExecutions
from esexec.client.handle import Handle

__all__ = ["Checkpoint", "Checkpoints", "Client", "Executions", "Handle", "StartOptions", "Startable", "TasksOfExecutions"]

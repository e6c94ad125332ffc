"""The client. Read in this order: `client` → `handle` → `commands` (what travels) → `feed` (what is heard)."""

from esexec.client.client import Client, Executions
from esexec.client.commands import Startable, StartOptions
from esexec.client.handle import Handle

__all__ = ["Client", "Executions", "Handle", "StartOptions", "Startable"]

"""The executor: load → decide → append → effects → ack, for every execution of a namespace.

Read in this order: `envelope` (a message) → `mailbox` (one execution's messages) → `desk` (all mailboxes, and what is rare) →
`outbox` (effects on NATS) → `intake` (messages from NATS) → `executor` (the process).
"""

from esexec.executor.executor import Executor

__all__ = ["Executor"]

"""esexec: a durable execution engine on NATS. This module holds the public names and nothing else."""

"""Every limit of the engine, by name. Units are in the names; a value is refused with the limit's name in the error.

Nothing else lives here. A limit that is checked somewhere is spelled `limits.NAME` there, so that a search finds both.
"""

from typing import Final

# Identity ------------------------------------------------------------------------------------------------------------
id_chars: Final = 64
"""Longest execution, step, command or queue id."""
task_name_chars: Final = 128
"""Longest name of a task."""
idempotency_key_chars: Final = 512
"""Longest idempotency key a client may give."""

# Plans ---------------------------------------------------------------------------------------------------------------
steps_per_plan: Final = 10_000
"""Most steps of a plan."""
plan_bytes: Final = 256 * 1024
"""Largest plan within a message, as JSON; a larger one travels as an object."""
large_plan_bytes: Final = 8 * 1024 * 1024
"""Largest plan."""
unannounced_tasks: Final = 100
"""Most tasks that no worker has announced that a start, and its history, tell of."""
plan_problems: Final = 100
"""Most problems of one plan file that are told at once."""
params_bytes: Final = 256 * 1024
"""Largest params within a dispatch, after references were resolved; larger ones travel as an object."""
input_bytes: Final = 256 * 1024
"""Largest input within a message; a larger one travels as an object. Also the largest context or metadata of a start."""
output_bytes: Final = 256 * 1024
"""Largest output within a report; a larger one travels as an object."""
object_bytes: Final = 64 * 1024 * 1024
"""Largest object: an input, an output, or params with their references resolved. A larger output fails the attempt with
`output_too_large`."""
outputs_bytes: Final = 256 * 1024 * 1024
"""Outputs in objects that a result of an execution holds, all together; of further steps it says which objects they are."""
opened_bytes: Final = 64 * 1024 * 1024
"""Objects that a process keeps in memory, all together."""
nesting_depth: Final = 100
"""Deepest nesting of any JSON value that enters the engine."""
name_chars: Final = 256
"""Longest name of a plan."""
text_chars: Final = 10_000
"""Longest description, reason or error message; longer error messages are cut, longer descriptions refused."""
stack_chars: Final = 20_000
"""Longest stack trace kept in an error; the middle is cut."""

# Decisions -----------------------------------------------------------------------------------------------------------
events_per_commit: Final = 500
"""Most events of one decision; the rest is decided in a `continue`."""
commit_bytes: Final = 256 * 1024
"""A decision that would grow past this goes on in a `continue`. One event may exceed it alone, up to `message_bytes`."""
message_bytes: Final = 1024 * 1024
"""The server's `max_payload`; nothing larger, headers included, is ever published."""
headers_bytes: Final = 4 * 1024
"""What a commit leaves of `message_bytes` for the headers it is published with."""

# Settings ------------------------------------------------------------------------------------------------------------
max_retries: Final = 1_000
"""Most re-attempts of a step."""
parallel_execution_limit: Final = 1_000
"""Most steps of an execution that can be in flight."""
timeout_ms: Final = 7 * 24 * 3600 * 1000
"""Longest timeout of an attempt: 7 days."""
delay_ms: Final = 365 * 24 * 3600 * 1000
"""Longest delay of any kind: a year."""
priority_max: Final = 10
"""Highest priority; the lowest is 0."""
queue_presets: Final = 100
"""Queues that a namespace has settings for."""

# Lifecycle -----------------------------------------------------------------------------------------------------------
recoveries_per_step: Final = 10
"""Recovery strategies run for one step, until somebody retries or restores the execution; then the step fails."""
checkpoints_per_execution: Final = 10_000
"""Checkpoints of one execution; a further one is not made, and says so."""
recovery_wait_ms: Final = 300_000
"""How long a strategy's question may wait for a worker (or its timeout, if longer); then what follows a failure follows."""
vars_bytes: Final = 64 * 1024
"""Largest variables of an execution (`ctx.vars`), as JSON. An attempt that would exceed it fails with `vars_too_large`."""
image_bytes: Final = 128 * 1024
"""Largest before-image (`ctx.before`)."""
fork_bytes: Final = 256 * 1024
"""Largest outputs that a retry as a new execution can take along."""
strategies: Final = 100
"""Recovery strategies of a namespace."""
plans_stored: Final = 10_000
"""Plans that a namespace keeps."""
alerts: Final = 200
"""Alerts that are set in a namespace."""
alert_window_min_ms: Final = 1_000
"""Shortest window that an alert can count over."""
alert_window_ms: Final = 24 * 3600 * 1000
"""Longest window that an alert can count over: 24 hours."""
alert_sources: Final = 1_000
"""Workers, queues or projections that one alert watches; further ones are not."""
webhook_chars: Final = 2_000
"""Longest URL of a webhook."""

# What executions share -----------------------------------------------------------------------------------------------
key_chars: Final = 512
"""Longest key of a rate limit or of concurrency, with its references resolved."""
grants_per_window: Final = 10_000
"""Most executions that a rate limit can allow within its window."""
window_ms: Final = 31 * 24 * 3600 * 1000
"""Longest window of a rate limit."""
concurrency_limit: Final = 10_000
"""Most executions or steps that a concurrency key can let run at once."""
requests_waiting: Final = 2_000
"""Requests that wait in one entity (a rate limit, a key, the pools). Further ones stay in INBOX, and come again."""
pools: Final = 500
"""Resource pools of a namespace."""
pool_bytes: Final = 4 * 1024
"""Largest pool, with its attributes, as JSON; also the largest requirements of one step or allocation."""
requirements: Final = 20
"""Resource requirements of one step or allocation."""
resources_released: Final = 1_000
"""Resources that one command gives back."""
resource_lease_ms: Final = 30_000
"""How long a client holds resources without a word, unless it says otherwise."""
resource_lease_max_ms: Final = 24 * 3600 * 1000
"""Longest lease that a client can ask for."""
commits_before_compaction: Final = 200
"""So many commits after the last one that held its whole state, a rate limit, a key or the pools are compacted."""
untold_positions: Final = 100_000
"""What is compacted stays in the log until the feed of events has told it, unless that is so many positions behind."""

# The log as a library's ------------------------------------------------------------------------------------------------------
snapshots_bytes: Final = 256 * 1024 * 1024
"""Snapshots of executions that `esexec.eventsourcing` keeps of a namespace; the oldest give way."""

# Time ----------------------------------------------------------------------------------------------------------------
cancel_grace_ms: Final = 10_000
"""How long a cancelled execution waits for its running attempts."""
lease_ms: Final = 5_000
"""How long a silent worker keeps a dispatch (the consumers' ack wait)."""
heartbeat_ms: Final = 1_500
"""How often a worker renews a lease."""
timeout_grace_ms: Final = 2_000
"""Past its timeout an attempt's lease is no longer renewed after this."""
started_report_after_ms: Final = 50
"""A task that runs longer than this reports its start on its own."""
losses_per_attempt: Final = 10
"""An attempt that was begun, and whose worker was lost this often, ends as `WORKER_LOST`."""
checkpoint_interval_min_ms: Final = 100
"""Shortest interval of checkpoints; a shorter one is taken as this."""
backstop_timer_ms: Final = 1_000
"""Delays below this also run on a timer inside the executor; the durable timer is then only the backstop."""

# Capacity ------------------------------------------------------------------------------------------------------------
partitions: Final = 16
"""Partitions of COMMANDS and of INBOX."""
commands_waiting: Final = 200_000
"""Messages in COMMANDS; a further one is refused (`overloaded`)."""
questions_at_once: Final = 100
"""Questions to JetStream (what the log holds, what a stream is) that a connection has open at once; further ones wait in line."""
dead_letters_bytes: Final = 16 * 1024 * 1024
"""Largest page of dead letters; what follows has its cursor."""
tasks_waiting: Final = 20_000
"""Executors stop taking new commands while more dispatches than this wait for workers."""
cached_entities: Final = 20_000
"""Entities an executor keeps in memory."""
cached_bytes: Final = 128 * 1024 * 1024
"""Bytes of history that those entities may have together; what they take in memory is a small multiple of it."""
cached_plans: Final = 1_000
"""Compiled plans of up to 4 KB that a process keeps in memory."""
cached_large_plans: Final = 64
"""Compiled plans of more than 4 KB, up to `plan_bytes`, that a process keeps in memory."""
cached_huge_plans: Final = 4
"""Compiled plans of more than `plan_bytes` that a process keeps in memory."""

# What handlers tell and measure ------------------------------------------------------------------------------------------
metric_name_chars: Final = 128
"""Longest name of a metric, of one of its values or of a tag."""
metric_tag_chars: Final = 256
"""Longest value of a tag."""
metric_parts: Final = 32
"""Most values of one metric, and most of its tags."""
metrics_per_attempt: Final = 100
"""Most metrics of one attempt."""
schema_bytes: Final = 16 * 1024
"""Largest schema of a task's parameters that is announced, as JSON."""
schemas_bytes: Final = 256 * 1024
"""Largest schemas that one worker announces, all together."""
task_versions: Final = 8
"""So many different schemas of one task are known beside each other."""
directive_bytes: Final = 16 * 1024
"""Largest directive that a handler gives beside its output or its error, as JSON."""
measured_bytes: Final = 16 * 1024
"""Largest metrics of one attempt, all together, as JSON."""
cost_max: Final = 1e12
"""Highest cost of an attempt, and of all attempts of a step."""
live_text_chars: Final = 2_000
"""Longest text of a log line or of progress; a longer one is cut."""
live_fields_bytes: Final = 4 * 1024
"""Largest fields of a log line, as JSON; larger ones are left out, and their names told."""
live_kept: Final = 50
"""Log lines, and reports of progress, that are kept of an execution."""
live_kept_ms: Final = 3600 * 1000
"""How long they are kept: 1 hour."""
live_bytes: Final = 16 * 1024 * 1024
"""Memory of the server for what is kept of log lines and progress of a namespace."""
progress_interval_ms: Final = 100
"""Shortest time between two reports of progress of an attempt; of those between, the last is sent."""
log_lines_per_second: Final = 100
"""Log lines that an attempt may tell in a second; further ones are left out, and counted."""
sample_interval_ms: Final = 5_000
"""How often a worker tells how its process does, unless it says otherwise."""
sampled_executions: Final = 100
"""Executions that such a sample names."""
workers_shown: Final = 1_000
"""Workers that one who asks hears of; of further ones `esexec top` and `client.workers` are silent."""
monitored_kept: Final = 1_000
"""Updates, and samples of workers, that a client keeps of an execution that it monitors; the last ones."""

# Resources of a worker, cached results -----------------------------------------------------------------------------------
pool_size: Final = 1_000
"""Most items of one resource of a worker."""
cached_result_bytes: Final = 64 * 1024
"""Largest output that is cached, as JSON and with what is kept beside it."""
cache_key_bytes: Final = 256 * 1024
"""Largest value that a cached result is found by, as JSON."""
cache_bytes: Final = 256 * 1024 * 1024
"""Cached results of a namespace, all together; the oldest give way."""

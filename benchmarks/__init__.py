"""The workloads of docs/explanation/benchmarks.md: six against `raw`, the same messages without an engine, and four others.

Read in this order: `tasks` and `workloads` (what is run) → `script` and `capture` (an execution's messages, recorded) →
`wire` and `raw_roles` (their replay) → `engine_roles` → `role` (a process) → `server`, `processes`, `stack` (all that runs)
→ `rounds` (engine and raw by turns) → `throughput` (W1), `latency` (W2 to W4), `recovery` (W5), `footprint` (W6) →
`gated` (what executions share) → `past` (a log of many executions) and `reading_roles` → `catchup`, `queries`, `beside` →
`report` → `__main__`.
"""

"""The ground floor: what esexec *is*, without a machine to run it on.

The law of this package: no I/O, no clock, no chance, no threads, no NATS. Everything here is data or a pure function
of its arguments. Time and randomness come in as values. Whoever breaks this law breaks `fold`, and with it the promise
that a history can be told again by anyone.

Read in this order: `plan` (what is to be done) → `commands` and `reports` (what is wished and what was observed) →
`events` (what is fact) → `state` (what follows from the facts) → `decider` (which facts follow from a wish) →
`effects` (what the world must be told after a fact).

Structs of this floor are declared `gc=False`: none can be part of a reference cycle, and the collector need not look at them.
"""

"""What executions share: entities that hand out a right to begin, exactly, with any number of executors.

Three kinds, told apart by their ids: a rate limit (`_limit-<hash>`), a concurrency key (`_slots-<hash>`), the resource pools of
the namespace (`_pools`). All of them do the same: somebody asks (`acquire`), and is told `granted`, `waiting` or `denied`;
who is done says `release`. The request's id is the attempt's, `<execution>/<step>/<run>-<attempt>`, or a client's command's.

Read in this order: `requests` (what is asked and answered) → `state` → `limiter`, `slots`, `pools` (who can be granted what,
each a page of its own; `fitting`: which pools can serve what) → `decide` (one commit in the making) → `follow` (what must happen
after it).

The law of `domain` holds here. `now` is the server's time, never before the entity's last commit.
"""

"""Read models: what is kept of the log. Always rebuildable from it."""

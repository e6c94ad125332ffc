"""Examples that really run: each is a package with a README, its tasks and a `__main__`."""

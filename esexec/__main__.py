"""`python -m esexec`: the command line."""

from esexec.cli import main

main()

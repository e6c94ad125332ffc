"""The command line. Read in this order: `app` (the verbs) → `verb` (what they share) → `exits` → a verb.

Roles import little: what draws (rich) and reads files (ruamel) is imported by the verbs that need it, when they do.
"""


def main() -> None:
    """The entry point of the program `esexec`. Never returns: exits with a code of `exits.Exit`."""
    from esexec.cli.app import main as run

    run()

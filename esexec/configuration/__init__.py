"""Where the engine is and who we are to it: what the environment, a file of the project and contexts of the `nats` program say.

Read in this order: `keys` (what can be said) → `settled` (who wins) → `files`, `contexts` (where it is found).
"""

from esexec.configuration.keys import KEYS, Key
from esexec.configuration.settled import ARGUMENT, FILE, Configuration, Setting, configuration, mistaken

__all__ = ["ARGUMENT", "FILE", "KEYS", "Configuration", "Key", "Setting", "configuration", "mistaken"]

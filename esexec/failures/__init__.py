"""From an exception of user code to an `ErrorInfo`: what it was, and whether another try may help.

Who decides whether it is retried, first answer wins (the order of `describe`): the error's own `retry=` → registered
classifiers → the built-in lists (`known`, and the codes of `esexec.domain.retry`) → nobody, so that `retry_unknown` does.

Nothing here raises, whatever the exception does: a failure that cannot be told would be an attempt that cannot end.
"""

from esexec.failures.classifiers import Classification, classifier, remove_classifier
from esexec.failures.describe import describe

__all__ = ["Classification", "classifier", "describe", "remove_classifier"]

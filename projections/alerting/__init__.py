"""When the conditions of alerts hold. Pure: commits in log order, samples and ticks of a clock in; alerts out.

What is judged of events depends on the log alone, whenever it is read: an alert is triggered at the instant at which its
condition had held for long enough, not at the one at which somebody looked. So a restart doubles nothing, and what happened
meanwhile is told afterwards, once. Samples are in no log: what nobody heard is lost, and the next one counts.
"""

from projections.alerting.evaluator import Evaluator
from projections.alerting.samples import STALE_MS, Sample, samples_of
from projections.alerting.state import Active, AlertingState, SetAlert

__all__ = ["STALE_MS", "Active", "AlertingState", "Evaluator", "Sample", "SetAlert", "samples_of"]

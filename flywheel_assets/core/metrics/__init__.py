"""Metrics: how one answer is compared with the answer it is examined against, row by row.

What belongs here: definitions (each module holds one family and says where it comes from), the registry and `score_rows`.
What does not: means, intervals and tests over rows (`core.statistics`), or anything that asks a model.

Every score lies in 0..1; null (NaN in arrays) means that the metric does not apply to the row. A row that errored counts 0
wherever the metric applies.
"""

from flywheel_assets.core.metrics.installed import installed_versions
from flywheel_assets.core.metrics.metric import Metric, MetricError
from flywheel_assets.core.metrics.registry import MAIN_METRIC, metric_names, metrics_for, score_rows

__all__ = ["MAIN_METRIC", "Metric", "MetricError", "installed_versions", "metric_names", "metrics_for", "score_rows"]

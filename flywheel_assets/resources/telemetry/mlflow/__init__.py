"""MLflow as an observer: a run for every phase, nested as the work is, and the registry's models as people approved them.

What belongs here: everything said to MLflow. What does not: when it is said (`telemetry.lane`). Only `stores`, `runs` and
`registry` import MLflow itself, which takes seconds: nothing outside the background thread may import them.
"""

from flywheel_assets.resources.telemetry.mlflow.spec import MLFLOW, mlflow_spec

__all__ = ["MLFLOW", "mlflow_spec"]

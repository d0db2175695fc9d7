"""NeMo's in-process evaluator on batches of rows from stdin: `nemo_evaluator.py < batches > scores`, both JSON.

Started by `environments.run_nemo` with the interpreter of NeMo's environment; imports nothing of this project. A row is
`{"text", "said", "calls", "response"}`: reference text, answered text, reference calls in OpenAI's form with parsed
arguments, and the answer as a chat completion. Out come `{"versions", "batches"}`, and for each batch and metric the wall
time in seconds of `Evaluator().run_sync(metric, rows)` and a score a row, null for NaN. A metric that raises ends NeMo's
whole evaluation; then the rows are evaluated one by one, and such a row's score is the name of the error.
"""

import json
import logging
import math
import platform
import sys
import time
from importlib.metadata import version

from nemo_evaluator_sdk import Evaluator, F1Metric, ToolCallingMetric

METRICS = {
    "f1": F1Metric(reference="{{item.text}}", candidate="{{item.said}}"),
    "tool_calling": ToolCallingMetric(reference="{{item.calls}}"),
}


def outputs(metric, rows):
    """`{output: [value of each row]}` of a completed evaluation."""
    result = Evaluator().run_sync(metric, rows)
    scored = [
        {output.name: output.value for outputs in row.metrics.values() for output in outputs} for row in result.row_scores
    ]
    return {name: [None if math.isnan(row[name]) else row[name] for row in scored] for name in scored[0]}


def one_by_one(metric, rows):
    """The same, with the name of the error where the metric raises."""
    names = [output.name for output in metric.output_spec()]
    scores = {name: [] for name in names}
    for row in rows:
        try:
            (found,) = zip(*outputs(metric, [row]).values(), strict=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what a user of NeMo would meet
            found = [type(error.__cause__ or error).__name__] * len(names)
        for name, value in zip(names, found, strict=True):
            scores[name].append(value)
    return scores


def evaluate(metric, rows):
    """Seconds and scores; seconds are null where the evaluation ended early."""
    started = time.perf_counter()
    try:
        scores = outputs(metric, rows)
    except Exception:  # noqa: BLE001 - see above
        return {"seconds": None, "scores": one_by_one(metric, rows)}
    return {"seconds": time.perf_counter() - started, "scores": scores}


def main():
    logging.disable(logging.CRITICAL)
    batches = json.load(sys.stdin)
    for metric in METRICS.values():  # first use imports and compiles; that is no part of the figure
        outputs(metric, batches[0][:2])
    scored = [{name: evaluate(metric, rows) for name, metric in METRICS.items()} for rows in batches]
    versions = f"nemo-platform {version('nemo-platform')}, Python {platform.python_version()}"
    json.dump({"versions": versions, "batches": scored}, sys.stdout)


if __name__ == "__main__":
    main()

"""An endpoint that errors on everything, in the whole loop."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from dagster import DagsterInstance

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.status import status_of
from tests.existing_home import ANSWERS, flywheel_in, traffic
from tests.fakes import Fault

SETTINGS = """\
candidates: [{id: remote, model: https://models.example/v1, model_name: remote-1, engine: openai}]
split: {eval_size: 40, min_total_records: 50}
evaluation: {concurrency: 1}
"""


def test_a_refusing_endpoint_is_given_up_early_with_what_to_do_and_asked_the_rest_next_time(
    tmp_path: Path, instance: DagsterInstance
) -> None:
    records = traffic(ANSWERS, range(80))
    with flywheel_in(tmp_path, instance, SETTINGS, records) as home:
        home.ingest(records)
        home.double.always = Fault(400)
        report = home.bench.turn()
        message = report.failures[f"evals/base of {ANSWERS} x remote"]
        assert "HTTP 400" in message and "evaluation.max_error_share" in message and "only the rest is asked" in message
        # Base and prefixed, three rows each: the third error is more than 5% of 40.
        assert home.double.count <= 2 * 3
        check = dg.AssetCheckKey(asset_key(graph.EVALS[Variant.BASE]), "complete")
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
        assert latest.status.value == "FAILED"

        home.double.always = None
        assert home.bench.turn().ok
        cell = status_of(home.bench.flywheel)["workloads"][ANSWERS]["cells"]["remote"]
        assert cell["base"]["state"] == cell["prefixed"]["state"] == "ok"

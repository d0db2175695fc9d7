"""`make bench`: every benchmark, one JSON object a line on stdout; names as arguments run a part."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable

from benchmarks import (
    bfcl_parity,
    cleaning,
    dataprep,
    decision_statistics,
    demo,
    elasticsearch,
    incremental_evaluation,
    ingest,
    nemo,
    nemo_parity,
    scoring,
    sensors,
    telemetry,
)

Line = dict[str, object]
BENCHES: dict[str, Callable[[], Iterable[Line]]] = {
    "ingest_records_per_s": lambda: [ingest.bench_ingest()],
    "dataprep_records_per_s": lambda: [dataprep.bench_dataprep_speed()],
    "dataprep_peak_mb_100k": lambda: [dataprep.bench_dataprep_peak(100_000)],
    "dataprep_peak_mb_1m": lambda: [dataprep.bench_dataprep_peak_1m()],
    "incremental_ratio": lambda: [dataprep.bench_incremental_ratio()],
    "es_export_records_per_s": lambda: [elasticsearch.bench_export()],
    "scrub_dedup_records_per_s": lambda: [cleaning.bench_scrub_dedup()],
    "sensor_idle_tick_s": lambda: [elasticsearch.bench_idle_tick()],
    "score_1000_tool_rows_s": lambda: [scoring.bench_scoring()],
    "bootstrap_10k_s": lambda: [scoring.bench_bootstrap()],
    "scoring_vs_nemo_ratio": nemo_parity.bench_nemo,
    "bfcl_parity_differences": lambda: [bfcl_parity.bench_bfcl_parity()],
    "incremental_eval_calls_ratio": lambda: [incremental_evaluation.bench_incremental_evaluation()],
    "false_promotion_rate": lambda: [decision_statistics.bench_false_promotions()],
    "power_at_planned_n": lambda: [decision_statistics.bench_power()],
    "interval_coverage": lambda: [decision_statistics.bench_coverage()],
    "sensor_backlog_max_tick_s": lambda: [sensors.bench_backlog()],
    "nemo_parallel_ratio": lambda: [nemo.bench_parallel_ratio()],
    "telemetry_share": lambda: [telemetry.bench_share()],
    "telemetry_trouble_ratio": lambda: [telemetry.bench_trouble()],
    "noop_run_s": demo.bench_noop_run,
    "demo_one_candidate_wall_s": demo.bench_one_candidate,
    "demo_wall_s": demo.bench_demo,
}
# Measured in the same run as another one, so that both belong to the same rows and wall time.
ALIASES = {"orchestration_share": "demo_wall_s", "nemo_parity_differences": "scoring_vs_nemo_ratio"}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; 2 for an unknown name."""
    unknown = [name for name in names if name not in BENCHES and name not in ALIASES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}. Known: {', '.join([*BENCHES, *ALIASES])}", file=sys.stderr)
        return 2
    chosen = dict.fromkeys(ALIASES.get(name, name) for name in names) if names else BENCHES
    for name in chosen:
        for line in BENCHES[name]():
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

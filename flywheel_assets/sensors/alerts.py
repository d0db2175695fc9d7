"""Alerts: two sensors that tell people what they did not ask for, where `alerts` in flywheel.yaml names a channel.

Two, because Dagster's failure sensor is called for failed runs only and moves on whether or not the message got through:
`failed_runs` writes down, `alerts` looks at decisions and drift and sends whatever waits.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from flywheel_assets.assets.keys import ALL_KEYS
from flywheel_assets.assets.profile import SINCE_DECISION
from flywheel_assets.core import graph
from flywheel_assets.core.alerts import Alert, Standing, decision_changed, drifted, run_failed
from flywheel_assets.core.decisions import Verdict
from flywheel_assets.core.graph import Partition
from flywheel_assets.partitions import CANDIDATE_DIMENSION, WORKLOAD, WORKLOAD_DIMENSION
from flywheel_assets.resources.alerts import Outbox, channels_of
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.latest import latest
from flywheel_assets.settings import Settings, SettingsError
from flywheel_assets.settings.alerts import AlertKind

# A tick has 60 s before Dagster kills it; one sending that has begun may take another 40 s.
SEND_BUDGET_S = 15.0


def alert_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """`alerts`, and `failed_runs` where failures are told; none where there is no channel."""
    if not settings.alerts.is_configured:
        return []
    failures = [failed_runs_sensor(settings)] if AlertKind.RUN_FAILURE in settings.alerts.on else []
    return [alerts_sensor(settings), *failures]


def failed_runs_sensor(settings: Settings) -> dg.SensorDefinition:
    """The `failed_runs` sensor."""

    @dg.run_failure_sensor(
        name="failed_runs",
        minimum_interval_seconds=settings.automation.interval_s,
        default_status=dg.DefaultSensorStatus.STOPPED,
        # Runs of `flywheel run` have no code location that Dagster knows of, and would not be seen otherwise.
        monitor_all_code_locations=True,
        description="Has every failed run of the flywheel told by the `alerts` sensor.",
    )
    def failed_runs(context: dg.RunFailureSensorContext, flywheel: dg.ResourceParam[Flywheel]) -> None:
        """Must never send anything itself: what it fails to do is not asked of it a second time."""
        # A faulty edit of the settings must not lose the news of a failure.
        with suppress(SettingsError):
            flywheel = latest(flywheel)
        if _is_ours(context.dagster_run):
            Outbox(flywheel.settings.home).put(_failure(context, flywheel.settings.alerts.ui_url))

    return failed_runs


def alerts_sensor(settings: Settings) -> dg.SensorDefinition:
    """The `alerts` sensor."""

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=settings.automation.interval_s,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Tells people by webhook and e-mail about failed runs, decisions that changed, and drift.",
    )
    def alerts(context: dg.SensorEvaluationContext, flywheel: dg.ResourceParam[Flywheel]) -> dg.SkipReason:
        """Must never tell a thing twice, and never move its cursor past what is not written down in the outbox."""
        try:
            flywheel = latest(flywheel)
        except SettingsError as error:
            return dg.SkipReason(str(error))
        ours, outbox = flywheel.settings.alerts, Outbox(flywheel.settings.home)
        workloads = context.instance.get_dynamic_partitions(str(WORKLOAD.name))
        if AlertKind.DECISION_CHANGE in ours.on:
            told = {slug: Told(**entry) for slug, entry in json.loads(context.cursor or "{}").items()}
            news = list(_decisions(flywheel, workloads, told))
            # What stood when the sensor was started is no news.
            for alert in (alert for _, _, alert in news if context.cursor is not None):
                outbox.put(alert)
            told |= {slug: now for slug, now, _ in news}
            context.update_cursor(json.dumps({slug: asdict(one) for slug, one in sorted(told.items())}))
        if AlertKind.DRIFT in ours.on:
            for alert in _drifts(flywheel, workloads):
                outbox.put(alert)
        return dg.SkipReason(outbox.deliver(channels_of(ours), until=time.monotonic() + SEND_BUDGET_S).sentence())

    return alerts


@dataclass(frozen=True, slots=True)
class Told:
    """What was last told of a workload's decision. `number` counts its changes: a verdict may come back."""

    verdict: str
    candidate: str | None
    variant: str | None
    number: int

    @property
    def standing(self) -> Standing:
        """Without the number."""
        return Standing(self.verdict, self.candidate, self.variant)


def _decisions(flywheel: Flywheel, workloads: Sequence[str], told: Mapping[str, Told]) -> Iterator[tuple[str, Told, Alert]]:
    """The workloads whose decision says something else than what was told of it."""
    for slug in workloads:
        decision = flywheel.artifacts.current(graph.DECISION, Partition(slug))
        if decision is None:
            continue
        now, before = _standing(decision.summary), told.get(slug)
        if before is not None and before.standing == now:
            continue
        number = before.number + 1 if before is not None else 1
        alert = decision_changed(
            slug,
            before=before.standing if before is not None else None,
            now=now,
            reasons=decision.summary["reasons"],
            number=number,
            version=decision.version,
            ui_url=flywheel.settings.alerts.ui_url,
        )
        yield slug, Told(now.verdict, now.candidate, now.variant, number), alert


def _standing(summary: Mapping[str, Any]) -> Standing:
    if summary["verdict"] != Verdict.PROMOTE:
        # Who came closest changes with every few rows, and is nobody's winner.
        return Standing(summary["verdict"], None, None)
    return Standing(summary["verdict"], summary["candidate"], summary["variant"])


def _drifts(flywheel: Flywheel, workloads: Sequence[str]) -> Iterator[Alert]:
    for slug in workloads:
        profile = flywheel.artifacts.current(graph.PROFILE, Partition(slug))
        for check in profile.summary.get("checks", ()) if profile is not None else ():
            if check["name"] == "drift" and not check["passed"]:
                assert profile is not None
                since = check["details"].get(SINCE_DECISION, profile.version)
                yield drifted(slug, summary=check["message"], since=since, ui_url=flywheel.settings.alerts.ui_url)


def _is_ours(run: dg.DagsterRun) -> bool:
    """Whether a run is the flywheel's: it may be merged into a code location with others, and see all of them."""
    return any(tag.startswith("flywheel/") for tag in run.tags) or not set(ALL_KEYS.values()).isdisjoint(
        run.asset_selection or ()
    )


def _failure(context: dg.RunFailureSensorContext, ui_url: str | None) -> Alert:
    run, steps = context.dagster_run, context.get_step_failure_events()
    workload, candidate = _about(run)
    return run_failed(
        run.run_id,
        workload=workload,
        candidate=candidate,
        failed=[step.step_key.replace("__", "/") for step in steps if step.step_key is not None],
        reason=_reason(steps[0]) if steps else context.failure_event.message or "",
        ui_url=ui_url,
    )


def _about(run: dg.DagsterRun) -> tuple[str | None, str | None]:
    """Workload and candidate of a run, whoever started it."""
    key = run.tags.get("dagster/partition")
    single = key if key is not None and "|" not in key else None
    workload = run.tags.get("flywheel/workload") or run.tags.get(f"dagster/partition/{WORKLOAD_DIMENSION}") or single
    return workload, run.tags.get("flywheel/candidate") or run.tags.get(f"dagster/partition/{CANDIDATE_DIMENSION}")


def _reason(step: dg.DagsterEvent) -> str:
    """What the asset said (`dg.Failure`), else the error at the bottom of the chain."""
    data = step.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message if error is not None else step.message or ""

"""The outlets: where adapters are published, who is alerted, and who is told of the work."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from importlib.util import find_spec

from flywheel_assets.resources.doctor.finding import Finding
from flywheel_assets.resources.hub import HubError
from flywheel_assets.resources.telemetry.mlflow.health import examine_mlflow
from flywheel_assets.settings import Settings


def hub(settings: Settings) -> Iterator[Finding]:
    """Where approved adapters go: whether it can be reached, and whose key it is."""
    hub = settings.hub
    if not hub.enabled:
        return
    if hub.folder is not None:
        yield Finding("hub", True, f"folder {settings.resolve(hub.folder)}")
        return
    if find_spec("huggingface_hub") is None:
        yield Finding("hub", False, "not installed: huggingface_hub", "pip install 'flywheel-assets[hub]'")
        return
    # Imported here: whoever publishes nowhere needs no client.
    from flywheel_assets.resources.hub.endpoint import HubEndpoint

    visibility = "private" if hub.private else "public"
    try:
        endpoint = HubEndpoint.from_environment(private=hub.private)
        who = endpoint.who()
    except HubError as error:
        yield Finding("hub", False, f"namespace {hub.namespace}, {visibility} repositories", str(error))
        return
    version = importlib.metadata.version("huggingface_hub")
    found = f"{endpoint.address}, key of {who}, namespace {hub.namespace}, {visibility} repositories, client {version}"
    yield Finding("hub", True, found)


def alerts(settings: Settings) -> Iterator[Finding]:
    """Where alerts go. Nothing is sent: whoever looks here does not want to wake anybody."""
    ours = settings.alerts
    if not ours.is_configured:
        yield Finding("alerts", True, "none: nobody is told of failures, changed decisions or drift (docs/alerts.md)")
        return
    mail = ours.email
    names = [ours.webhook_env, *((mail.user_env, mail.password_env) if mail is not None else ())]
    missing = [name for name in names if name is not None and not os.environ.get(name, "").strip()]
    ways = [f"webhook of {ours.webhook_env}"] if ours.webhook_env is not None else []
    ways += [f"mail to {len(mail.to)} through {mail.host}:{mail.port}"] if mail is not None else []
    found = f"{', '.join(ours.on)} by {' and '.join(ways)} (nothing was sent)"
    if missing:
        yield Finding("alerts", False, f"{found}; NOT set: {', '.join(missing)}", "set it in the environment or in .env")
        return
    yield Finding("alerts", True, found)


def langfuse(settings: Settings) -> Iterator[Finding]:
    """Langfuse, where it is told of the work."""
    if settings.telemetry.langfuse.enabled:
        # Imported here: whoever tells nobody needs none of it.
        from flywheel_assets.resources.telemetry.langfuse.health import examine_langfuse

        health = examine_langfuse(settings)
        yield Finding("telemetry Langfuse", health.ok, health.found, health.advice)


def mlflow(settings: Settings) -> Iterator[Finding]:
    """MLflow, where it is told of the work."""
    if settings.telemetry.mlflow.enabled:
        health = examine_mlflow(settings)
        yield Finding("MLflow", health.ok, health.found, health.advice)

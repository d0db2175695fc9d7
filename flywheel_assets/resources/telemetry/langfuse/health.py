"""Health: what `flywheel doctor` says of Langfuse as one who is told. It asks anew, and sends nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from flywheel_assets.resources.sources import SourceError
from flywheel_assets.resources.sources.langfuse_api import Access, sdk_version
from flywheel_assets.resources.telemetry.langfuse.memory import Memory
from flywheel_assets.resources.telemetry.langfuse.service import LangfuseService, NotTold, skew
from flywheel_assets.settings import Settings

_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Health:
    """How it stands; `advice` is what to do, or what to know."""

    ok: bool
    found: str
    advice: str = ""


def examine_langfuse(settings: Settings) -> Health:
    """Whether the project answers, which server that is, what does not work with it, and what leaves this machine."""
    try:
        access = Access.from_environment()
        service = LangfuseService(access, Memory(settings.home, access))
        project = service.ask_project(time.monotonic() + _PATIENCE_S)
    except (SourceError, NotTold) as error:
        return Health(False, str(error), "see docs/telemetry.md; runs go on without it")
    except ImportError as error:
        return Health(False, f"the SDK is missing ({error})", "pip install 'flywheel-assets[langfuse]'")
    rows = "eval rows leave with their content" if settings.telemetry.langfuse.rows else "no content of rows leaves"
    found = f"project '{project.name}' at {access.base_url}, server {project.version}, SDK {sdk_version()}; {rows}"
    return Health(True, found, "" if project.lists else skew(project.version))

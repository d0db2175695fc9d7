"""`flywheel verify`: is everything in this home what was published?"""

from __future__ import annotations

from dagster import DagsterInstance
from rich.console import Console

from flywheel_assets.core.catalog import CATALOG_FILE
from flywheel_assets.core.graph import CATALOG, EVERYTHING
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.seals import placed_faults, whole_home
from flywheel_assets.settings import Settings


def verify_home(instance: DagsterInstance, settings: Settings) -> Json:
    """`{"versions", "sealed", "faults"}`: how many were looked at, how many Dagster vouches for, what is wrong."""
    flywheel = Flywheel.at_home(settings)
    looked_at = list(whole_home(instance, flywheel))
    faults = [fault for one in looked_at for fault in one.faults]
    faults += placed_faults(flywheel, flywheel.artifacts.current(CATALOG, EVERYTHING), CATALOG_FILE)
    return {"versions": len(looked_at), "sealed": sum(one.sealed for one in looked_at), "faults": faults}


def print_verified(content: Json, out: Console) -> None:
    """The findings, for people."""
    for fault in content["faults"]:
        out.print(fault, style="red", markup=False)
    unsealed = content["versions"] - content["sealed"]
    older = f"; {unsealed} are older than seals, of which only their own manifests were checked" if unsealed else ""
    count = len(content["faults"])
    found = f"{count} fault{'s' if count > 1 else ''}" if count else "all as published"
    out.print(f"{content['versions']} versions looked at: {found}{older}.", markup=False)

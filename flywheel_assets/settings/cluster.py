"""Judges that are NIMs of ours: who they are, and whether the GPU budget has room for a candidate beside them.

A run has them up before its first candidate, and until it ends: runs that held candidates and waited for a judge would wait
for each other's GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flywheel_assets.settings.nemo import NimImage

if TYPE_CHECKING:
    from flywheel_assets.settings.schema import Settings


def cluster_judges(settings: Settings) -> list[NimImage]:
    """The NIMs that judge any workload and that the flywheel deploys itself, each once and always in the same order."""
    found: list[NimImage] = []
    # The empty slug is no workload's: what holds for all that are not named.
    workloads = ("", *settings.workloads)
    judge = settings.nemo.judge
    if judge is not None and judge.type == "local":
        found += [judge.nim] if any(settings.evaluation_for(slug).tool_eval_type == "judge" for slug in workloads) else []
    named = {settings.judge_for(slug).candidate for slug in workloads}
    found += [candidate.nim for candidate in settings.candidates if candidate.id in named and candidate.nim is not None]
    by_name = {nim.deployment_name: nim for nim in found if nim.is_deployed_here}
    return [by_name[name] for name in sorted(by_name)]


def check_budget(settings: Settings) -> None:
    """ValueError where a candidate and the judges of the cluster can never be up together."""
    judges = {nim.deployment_name: nim.gpus or 0 for nim in cluster_judges(settings)}
    for nim in settings.nims:
        others = sum(gpus for name, gpus in judges.items() if name != nim.deployment_name)
        needed = (nim.gpus or 0 if nim.is_deployed_here else 0) + others
        if others and needed > settings.nemo.gpu_budget:
            raise ValueError(
                f"nemo.gpu_budget: '{nim.model_name}' and {', '.join(judges)}, which judges, need {needed} GPUs together, "
                f"and the budget is {settings.nemo.gpu_budget}. Raise it, or lower `gpus`; a judge behind a URL needs none"
            )

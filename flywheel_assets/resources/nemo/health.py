"""Health: whether each address of a cluster answers, as what, and whether what the settings name is there."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from flywheel_assets.resources.nemo.errors import NemoError
from flywheel_assets.settings import Settings

_PACKAGES = ("nemo_microservices", "huggingface_hub")


@dataclass(frozen=True, slots=True)
class Health:
    """One thing that was looked at; `advice` where it is not ok."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def examine_cluster(settings: Settings) -> Iterator[Health]:
    """Look at the packages, every service, the namespace, and what each NIM needs; asks each address once."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        advice = "install the extra 'nemo': `pip install 'flywheel-assets[nemo]'`"
        yield Health("nemo packages", False, f"not installed: {', '.join(missing)}", advice)
        return
    yield Health("nemo packages", True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES))
    from flywheel_assets.resources.nemo.v1.probes import Probes

    probes = Probes(settings.nemo)
    nemo = settings.nemo
    targets: set[str] = set()
    served: list[str] = []

    def customizer() -> str:
        targets.update(probes.targets())
        return f"{nemo.base_url}, API v1, {len(targets)} targets"

    def proxy() -> str:
        served.extend(probes.served_models())
        version = probes.nim_version()
        return f"{nemo.nim_url}{f', version {version}' if version else ''}, serves {', '.join(served) or 'nothing now'}"

    looks: dict[str, Callable[[], str]] = {
        "entity store": lambda: f"{nemo.base_url}, API v1, {probes.entity_namespace()}",
        "data store": lambda: f"{nemo.datastore_url}, {probes.data_namespace()}",
        "customizer": customizer,
        "evaluator": lambda: f"{nemo.base_url}, API v1, {probes.evaluation_jobs()} jobs listed",
        "deployment management": lambda: f"{nemo.base_url}, API v1, {probes.deployments()} deployments listed",
        "nim proxy": proxy,
    }
    reached = set()
    for what, look in looks.items():
        try:
            yield Health(what, True, look())
            reached.add(what)
        except NemoError as error:
            yield Health(what, False, "no use", str(error))
    for candidate in settings.candidates:
        if candidate.nim is None:
            continue
        nim, config = candidate.nim, candidate.nim.customizer_configs
        what = f"candidate {candidate.id}"
        if config is not None and "customizer" in reached and config.target not in targets:
            advice = f"the Customizer has {', '.join(sorted(targets)) or 'no target'}; mend `customizer_configs.target`"
            yield Health(what, False, f"target {config.target} does not exist", advice)
        elif not nim.is_deployed_here and "nim proxy" in reached and nim.model_name not in served:
            advice = "deploy it there, or give it a `tag` and `gpus`, and it is deployed for as long as it is used"
            yield Health(what, False, f"{nim.model_name} is not served, and has no `tag`", advice)
        else:
            image = f"image {nim.registry_base}/{nim.model_name}:{nim.tag}" if nim.is_deployed_here else "runs there already"
            yield Health(what, True, f"{nim.model_name}, {nim.gpus or 0} GPUs, {image}")

"""NeMo Microservices, API v1: the only place that knows its SDK, its paths and its words.

    nemo = NemoV1(settings.nemo, ledger)
    nemo.customizer.customize(order, rows, say)

`connection` (clients, retries, which error means what), `datastore` (namespaces, files, datasets), `customizer`,
`deployments`, `evaluator` (with `eval_configs`, what a job is told, and `rows`, how rows are written and read back).
"""

from flywheel_assets.resources.nemo.v1.service import NemoV1

__all__ = ["NemoV1"]

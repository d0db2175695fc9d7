"""Serving: a candidate behind an OpenAI-compatible endpoint, on this machine or wherever it already runs.

    with Serving(...).deployed(candidate, adapter_gguf=adapter, owner=run_id) as endpoint:
        ...

`deployment` goes from a candidate to an engine; `llama_cpp` (with its child, `llama_server`) and `openai_api` are the
engines; `endpoint` is what every caller sees.
"""

from flywheel_assets.resources.serving.deployment import Serving
from flywheel_assets.resources.serving.endpoint import Endpoint, EndpointLost, ServerKilled, ServingError
from flywheel_assets.resources.serving.openai_api import NotReady, RemoteModel, remote_endpoint

__all__ = [
    "Endpoint",
    "EndpointLost",
    "NotReady",
    "RemoteModel",
    "ServerKilled",
    "Serving",
    "ServingError",
    "remote_endpoint",
]

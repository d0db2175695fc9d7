"""Serving: a candidate of flywheel.yaml behind an OpenAI-compatible endpoint, for as long as a block lasts.

What belongs here: from a candidate to an order for its engine, and the GPU budget. What does not: the engines.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.resources.chat_templates import resolve_template
from flywheel_assets.resources.leases import LeaseTable
from flywheel_assets.resources.model_files import sha256_of
from flywheel_assets.resources.serving.endpoint import Endpoint, ServingError
from flywheel_assets.resources.serving.llama_cpp import ServerOrder, running_server
from flywheel_assets.resources.serving.openai_api import RemoteModel, remote_endpoint
from flywheel_assets.settings import Candidate
from flywheel_assets.settings.local_models import NoGguf, gguf_at

GPU_POOL = "gpu"
MODELS_OWN_TEMPLATE = "the model's own"


@dataclass(frozen=True, slots=True)
class Serving:
    """Deploys candidates on this machine, or connects to where they are.

    `resolve` turns a path of flywheel.yaml into one of this machine (`Settings.resolve`); `root` is the folder of
    flywheel.yaml. Candidates that use GPUs take a lease of `gpu_budget` in `leases` while they are up.
    """

    resolve: Callable[[str], Path] = Path
    root: Path = Path()
    leases: LeaseTable | None = None
    gpu_budget: int = 1
    announce: Callable[[str], None] | None = None

    @contextmanager
    def deployed(
        self,
        candidate: Candidate,
        *,
        adapter_gguf: Path | None = None,
        owner: str,
        threads: int | None = None,
        parallel: int = 1,
        port: int = 0,
        private: bool = True,
    ) -> Iterator[Endpoint]:
        """The candidate, ready to answer, given back when the block ends.

        With `adapter_gguf` the server answers as base and as customized, as each request asks (`Endpoint.extra_body`).
        `owner` is the run it is for; `threads` None takes every core this process may use; `parallel` is how many requests
        are computed at once, each with the candidate's whole context length; `port` 0 takes a free one; a `private` server
        answers only who holds the endpoint's key. Raises ServingError, and waits for the GPU budget. Enter and leave the
        block in the same thread.
        """
        if candidate.is_remote:
            if adapter_gguf is not None:
                raise ServingError(
                    f"candidate '{candidate.id}': {candidate.model} cannot load our adapter. Serve its base model only."
                )
            yield remote_endpoint(RemoteModel.of(candidate))
            return
        model = self._gguf_of(candidate)
        template = resolve_template(candidate, self.root)
        order = ServerOrder(
            model=model,
            alias=candidate.id,
            adapter=adapter_gguf,
            chat_template=template,
            context_length=candidate.context_length,
            parallel=parallel,
            threads=threads or len(os.sched_getaffinity(0)),
            gpu=candidate.gpus > 0,
            port=port,
            private=private,
        )
        with (
            self._gpus_of(candidate, owner),
            running_server(f"candidate '{candidate.id}'", order) as server,
        ):
            yield Endpoint(
                base_url=server.base_url,
                model=candidate.id,
                engine_build=server.build,
                model_identity=sha256_of(model),
                template_identity=MODELS_OWN_TEMPLATE if template is None else hashlib.sha256(template.encode()).hexdigest(),
                adapter_identity=None if adapter_gguf is None else sha256_of(adapter_gguf),
                can_load_adapter=True,
                slots=parallel,
                context_length=candidate.context_length,
                api_key=server.api_key,
                fault=server.fault,
            )

    @contextmanager
    def _gpus_of(self, candidate: Candidate, owner: str) -> Iterator[None]:
        if candidate.gpus == 0 or self.leases is None:
            yield
            return
        with self.leases.acquire(
            GPU_POOL, weight=candidate.gpus, budget=self.gpu_budget, owner=owner, announce=self.announce
        ):
            yield

    def _gguf_of(self, candidate: Candidate) -> Path:
        try:
            return gguf_at(self.resolve(candidate.model))
        except NoGguf as error:
            raise ServingError(f"candidate '{candidate.id}': {error}") from None

"""Settings of rollouts by vLLM instead of transformers. They need GPUs and the extra `vllm`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Engine(StrEnum):
    """Who generates the rollouts."""

    none = "none"
    colocate = "colocate"
    server = "server"


@dataclass(kw_only=True, slots=True)
class VllmConfig:
    """How TRL asks vLLM; what it leaves open is closed in rollouts.py."""

    mode: Engine = Engine.none
    """none generates with transformers; colocate shares the training GPUs; server asks one that
    runs: VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs
    --weight-transfer-config '{"backend": "nccl"}'"""
    memory: float = 0.3
    """Share of a GPU's memory that vLLM takes (colocate)."""
    tensor_parallel: int = 1
    """GPUs that share one copy of the model (colocate)."""
    longest: int | None = None
    """Most tokens of prompt and answer together; null takes the model's own limit (colocate)."""
    sleep: bool = False
    """Give the memory back while weights are trained; costs a reload each step (colocate)."""
    url: str | None = None
    """Where the server listens; null is port 8000 of this machine (server)."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not 0 < self.memory <= 0.95:
            yield "memory", "must lie above 0 and at or below 0.95"
        if self.tensor_parallel < 1:
            yield "tensor_parallel", "must be at least 1"
        if self.longest is not None and self.longest < 1:
            yield "longest", "must be at least 1, or null for the model's own limit"
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            yield "url", "must start with http:// or https://"

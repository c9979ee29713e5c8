"""Settings of the engines: which one generates, and how a server or vLLM is used."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit


class EngineKind(StrEnum):
    """What generates responses."""

    hf = "hf"
    """transformers in this process."""
    vllm = "vllm"
    """vLLM's offline engine in this process (the extra vllm; needs a GPU)."""
    http = "http"
    """A server that speaks OpenAI's chat completions: vLLM, SGLang, LMDeploy, transformers."""


RESERVED_FIELDS = ("model", "messages", "temperature", "seed", "max_tokens", "n", "stream")
"""Fields that difftrain sets in every request."""


@dataclass(kw_only=True, slots=True)
class ServerConfig:
    """How a server is called (model.engine=http). Only `name` and `extra` may change a response."""

    name: str | None = None
    """The model's name on the server; null takes model.name."""
    api_key_env: str = "MODEL_API_KEY"
    """Environment variable with the API key, if the server needs one; it is never written."""
    max_concurrency: int = 64
    """Open requests of each process at the same time."""
    max_attempts: int = 5
    """Attempts for one response before its sample is marked as failed."""
    timeout_s: float = 600.0
    """Limit from sending a request to the last byte of the response."""
    backoff_s: float = 1.0
    """Pause before the second attempt, doubled each time; Retry-After is obeyed."""
    max_outage_s: float = 1800.0
    """How long the server may be away during a run before the run ends."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of each request, with a plus: +model.server.extra.top_k=20."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not self.api_key_env.isidentifier():
            yield "api_key_env", "must be the name of an environment variable"
        elif not (os.environ.get(self.api_key_env, "") + " ").isprintable():
            yield "api_key_env", "names a variable whose value is not one line of plain characters"
        if not 1 <= self.max_concurrency <= 1024:
            yield "max_concurrency", "must lie between 1 and 1024"
        if not 1 <= self.max_attempts <= 20:
            yield "max_attempts", "must lie between 1 and 20"
        if not 0 < self.timeout_s <= 86_400:
            yield "timeout_s", "must lie above 0 and at or below 86400"
        if not 0 <= self.backoff_s <= 60:
            yield "backoff_s", "must lie between 0 and 60"
        if not 0 <= self.max_outage_s <= 604_800:
            yield "max_outage_s", "must lie between 0 and 604800"
        if reserved := [name for name in self.extra if name in RESERVED_FIELDS]:
            yield "extra", f"may not set {', '.join(reserved)}"


@dataclass(kw_only=True, slots=True)
class VllmConfig:
    """vLLM's offline engine (model.engine=vllm)."""

    tensor_parallel_size: int = 1
    """GPUs that share one copy of the model; GPUs in all: ranks times this."""
    gpu_memory_utilization: float = 0.9
    """Share of each GPU's memory that it may use."""
    max_model_len: int | None = None
    """Limit of prompt and response tokens together; null takes the model's own."""
    max_num_seqs: int = 256
    """Responses that are generated at the same time."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.tensor_parallel_size < 1:
            yield "tensor_parallel_size", "must be at least 1"
        if not 0.1 <= self.gpu_memory_utilization <= 1:
            yield "gpu_memory_utilization", "must lie between 0.1 and 1"
        if self.max_model_len is not None and self.max_model_len < 256:
            yield "max_model_len", "must be at least 256, or null"
        if self.max_num_seqs < 1:
            yield "max_num_seqs", "must be at least 1"


def is_address(url: str) -> bool:
    """Whether this is an http or https address with a host and a port that can be one."""
    try:
        parts = urlsplit(url.strip())
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, an unclosed bracket
        return False


def url_problem(engine: EngineKind, url: str | None) -> str | None:
    """The rule that model.url breaks, or None."""
    if engine is not EngineKind.http:
        return None if url is None else "is used only with model.engine=http"
    if url is None:
        return "is needed with model.engine=http, such as http://host:8000/v1"
    if not is_address(url):
        return "must be an address such as http://host:8000/v1"
    if "@" in urlsplit(url).netloc:
        return (
            "must not hold a password; put the key into the variable that server.api_key_env names"
        )
    return None

"""Settings of the model, of the engine that generates responses, and of its server or vLLM."""

import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from difftrain.config.setting import Problems, did_you_mean, setting
from difftrain.model import resolve

FIXED_ROWS = 16  # rows of every generation step in deterministic mode; batch_size is ignored
RESERVED_FIELDS = ("model", "messages", "temperature", "seed", "max_tokens", "n", "stream")
"""Fields of a request that difftrain sets itself; `extra` may not contain them."""
Dtype = StrEnum("Dtype", ["float32", "bfloat16"])
"""The number format of the weights."""


class EngineKind(StrEnum):
    """What generates responses."""

    hf = "hf"
    """transformers in this process."""
    vllm = "vllm"
    """vLLM's offline engine in this process (the extra vllm; docs/vllm.md)."""
    http = "http"
    """A server with OpenAI's chat completions API: vLLM, SGLang, LMDeploy, transformers."""


@dataclass(kw_only=True, slots=True)
class ServerConfig:
    """How a server is called (model.engine=http). Only `name` and `extra` may change a response."""

    name: str | None = None
    """The model's name on the server; null takes model.name."""
    api_key_env: str = "MODEL_API_KEY"
    """Environment variable with the API key, if the server needs one; no file contains the key."""
    max_concurrency: int = setting(64, at_least=1, at_most=1024)
    """Number of requests that each process may have open at the same time."""
    max_attempts: int = setting(5, at_least=1, at_most=20)
    """Attempts for one response before its sample is marked as failed."""
    timeout_s: float = setting(600.0, above=0, at_most=86_400)
    """Limit from sending a request to the last byte of the response."""
    backoff_s: float = setting(1.0, at_least=0, at_most=60)
    """Pause before the second attempt; it doubles with every attempt. Retry-After is obeyed."""
    max_outage_s: float = setting(1800.0, at_least=0, at_most=604_800)
    """How long the server may be unreachable during a run before the run fails."""
    png_level: int | None = setting(
        None, fingerprint=(), at_least=0, at_most=9, rule="must be 0 to 9, or null"
    )
    """PNG compression of the probe's images: 0 is fastest and sends most bytes. null: 0 for a
    server on this machine, else 1."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Additional fields of every request, set with a plus: +model.server.extra.top_k=20."""

    def check(self) -> Problems:
        if not self.api_key_env.isidentifier():
            yield "api_key_env", "must be the name of an environment variable"
        elif not os.environ.get(self.api_key_env, "").isprintable():
            yield "api_key_env", "names a variable whose value is not one line of plain characters"
        if reserved := [name for name in self.extra if name in RESERVED_FIELDS]:
            yield "extra", f"may not set {', '.join(reserved)}"


LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(kw_only=True, slots=True)
class VllmConfig:
    """vLLM's offline engine (model.engine=vllm)."""

    tensor_parallel_size: int = setting(1, at_least=1)
    """Number of GPUs that share one copy of the model; every rank needs as many."""
    gpu_memory_utilization: float = setting(0.9, at_least=0.1, at_most=1)
    """Share of each GPU's memory that vLLM may use."""
    max_model_len: int | None = setting(None, at_least=256, rule="must be at least 256, or null")
    """Limit of prompt and response tokens together; null takes the model's own."""
    max_num_seqs: int = setting(256, at_least=1)
    """Largest number of responses that are generated at the same time."""


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """A vision-language model of a family that works (docs/support_matrix.md)."""

    name: str = "tiny"
    """`tiny` ships with the package; otherwise a local folder or a hub id."""
    revision: str | None = None
    """Commit or tag of a hub id."""
    dtype: Dtype = setting(Dtype.bfloat16, fingerprint=("probe", "train", "responses", "preflight"))
    """Qi et al. 2026 and RAP train and evaluate in bf16; conf/model/tiny.yaml sets float32."""
    batch_size: int = setting(64, at_least=1)
    """Largest number of responses generated together; halved when memory runs out."""
    batch_tokens: int = setting(262_144, at_least=1)
    """Limit of responses x (tokens of the largest prompt + max_new_tokens) in one batch."""
    deterministic: bool = False
    """true: batch_size, number of ranks and restarts change no bit of a response. Every step has 16
    rows, and every prompt is prefilled alone (see difftrain/model/README.md)."""
    attention_batch_size: int = setting(16, at_least=1)
    """Batch size of the attention pass, the forward passes that measure attention."""
    engine: EngineKind = setting(EngineKind.hf, fingerprint=())
    """What generates responses; the attention pass and training always run in this process."""
    url: str | None = setting(None, fingerprint=())
    """Address of the server of engine=http, including its version: http://host:8000/v1. Several,
    with blanks between them, are copies of one model, which get equal shares of the requests."""
    server: ServerConfig = setting(default_factory=ServerConfig, fingerprint=())
    vllm: VllmConfig = setting(default_factory=VllmConfig, fingerprint=())

    @property
    def max_concurrency(self) -> int:
        """Responses that the engine generates at the same time, in one process."""
        if self.engine is EngineKind.hf:
            return FIXED_ROWS if self.deterministic else self.batch_size
        is_http = self.engine is EngineKind.http
        return self.server.max_concurrency if is_http else self.vllm.max_num_seqs

    @property
    def png_level(self) -> int | None:
        """PNG compression of images for the server; None: the engine takes no encoded images."""
        if self.engine is not EngineKind.http:
            return None
        if self.server.png_level is not None:
            return self.server.png_level
        is_local = all(urlsplit(url).hostname in LOCAL_HOSTS for url in addresses(self.url or ""))
        return 0 if self.url and is_local else 1

    @property
    def in_process(self) -> "ModelConfig":
        """The same settings, but a server is replaced by generation in this process."""
        is_http = self.engine is EngineKind.http
        return replace(self, engine=EngineKind.hf, url=None) if is_http else self

    @property
    def served_name(self) -> str:
        """The model's name as the server knows it."""
        return self.server.name or self.name

    @property
    def engine_settings(self) -> dict[str, Any]:
        """The engine settings that can change responses (not the server's address or limits)."""
        if self.engine is EngineKind.hf:
            return {"deterministic": True} if self.deterministic else {}
        if self.engine is EngineKind.vllm:
            return {"engine": "vllm"}
        return {"engine": "http", "served": self.served_name, "extra": dict(self.server.extra)}

    def check(self) -> Problems:
        folder, is_shipped = Path(self.name).expanduser(), self.name in resolve.SHIPPED
        needs_files = self.engine is not EngineKind.http and not is_shipped
        if not folder.is_dir():
            if self.name.startswith((".", "/", "~")):
                yield "name", "there is no such folder"
            elif not is_shipped and "/" not in self.name:
                hint = did_you_mean(self.name, [*resolve.SHIPPED])
                shipped = " nor ".join(resolve.SHIPPED)
                yield "name", f"is neither {shipped}, a folder nor a hub id{hint}"
        elif needs_files and (missing := resolve.missing_part(folder)):
            yield "name", f"the folder is incomplete: {missing}; copy or make it again"
        if self.engine is not EngineKind.http:
            if self.url is not None:
                yield "url", "is used only with model.engine=http"
        elif self.url is None:
            yield "url", "is needed with model.engine=http, such as http://host:8000/v1"
        elif not (urls := addresses(self.url)) or not all(map(is_address, urls)):
            yield "url", "must be an address such as http://host:8000/v1, or several with blanks"
        elif len({*urls}) < len(urls):
            yield "url", "names an address twice"
        elif any("@" in urlsplit(url).netloc for url in urls):
            advice = "put the key into the variable that server.api_key_env names"
            yield "url", f"must not hold a password; {advice}"
        if self.deterministic and self.engine is not EngineKind.hf:
            yield "deterministic", "works only with engine=hf; a server chooses its own batches"


def addresses(url: str) -> list[str]:
    """The addresses in model.url, which blanks or commas separate, without a slash at the end."""
    return [address.rstrip("/") for address in url.replace(",", " ").split()]


def is_address(url: str) -> bool:
    """Whether this is an http or https address with a host and, if it names one, a valid port."""
    try:
        parts = urlsplit(url.strip())
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or an unclosed bracket
        return False

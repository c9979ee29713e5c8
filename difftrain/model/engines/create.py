"""The engine that `model.engine` names. The only place that chooses between them."""

from collections.abc import Callable
from importlib.util import find_spec

from difftrain.config.model import EngineKind, ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model.engines import hf, server_check, vllm
from difftrain.model.engines.types import Engine
from difftrain.model.loading import LoadedModel


def create_engine(
    config: ModelConfig, load: Callable[[], LoadedModel], pixels: tuple[int, int]
) -> Engine:
    """The engine of the settings, ready for requests.

    `load` is called only for engine=hf; `pixels` are the smallest and largest area of an image.
    Raises ConfigError where the server or vLLM cannot serve.
    """
    if config.engine is EngineKind.http:
        return server_check.connect(config, pixels[1])
    if config.engine is EngineKind.vllm:
        return vllm.VllmEngine(config, pixels)
    return hf.HfEngine(load(), hf.BatchLimits.of(config))


def check_engine(config: ModelConfig) -> None:
    """Raises ConfigError within seconds if the engine is not available. Generates nothing."""
    if config.engine is EngineKind.http:
        server_check.check_reachable(config)
    elif config.engine is EngineKind.vllm and not find_spec("vllm"):
        raise ConfigError(["model.engine=vllm: vLLM is not installed; install the extra vllm"])

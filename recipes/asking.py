"""The base model and whoever answers for it, made when a stage first needs them, and only once."""

from collections.abc import Callable
from functools import cached_property

from difftrain.config.engine import EngineKind
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import RunConfig
from difftrain.model import loading
from difftrain.model.engines import create
from difftrain.model.engines.types import Engine
from difftrain.model.loading import LoadedModel, load, with_pixel_budget


class Asking:
    """Holds the model, and the engine, that probe and evaluation share."""

    def __init__(self, config: RunConfig, model: ModelConfig | None = None) -> None:
        self.config, self.named = config, model or config.model
        self._engines: dict[tuple[int, int], Engine] = {}

    @cached_property
    def model(self) -> LoadedModel:
        """The loaded model."""
        data = self.config.data
        return load(self.named, data.min_pixels, data.max_pixels)

    @property
    def loaded(self) -> Callable[[], LoadedModel]:
        """What a stage calls if there is something left to measure."""
        return lambda: self.model

    def engine(self, min_pixels: int | None = None, max_pixels: int | None = None) -> Engine:
        """What a stage calls if there is something left to ask.

        Pictures between these areas are left as they are (the data stage's, without any).
        """
        data = self.config.data
        pixels = min_pixels or data.min_pixels, max_pixels or data.max_pixels
        if pixels not in self._engines:
            if self.named.engine is EngineKind.vllm:  # it takes its share of a GPU that is free
                self.release()
            self._engines[pixels] = create.create_engine(
                self.named, lambda: with_pixel_budget(self.model, *pixels), pixels
            )
        return self._engines[pixels]

    def here(self) -> "Asking":
        """Whoever asks the same weights in this process: a server has no trained ones."""
        if self.named.here is self.named:
            return self
        self.rest()
        found = Asking(self.config, self.named.here)
        if "model" in self.__dict__:
            found.__dict__["model"] = self.model
        return found

    def greet(self) -> None:
        """Raises ConfigError, within seconds, if the engine cannot be reached."""
        create.check_engine(self.named)

    def rest(self) -> None:
        """Let go of the engines: vLLM holds most of a GPU, which measuring or training needs."""
        for each in self._engines.values():
            each.close()
        self._engines.clear()

    def release(self) -> None:
        """Forget model and engines, so that training, or vLLM, has the memory."""
        self.rest()
        self.__dict__.pop("model", None)
        loading.free_memory()

"""The base model and whoever answers for it, made when a stage first needs them, and only once."""

from collections.abc import Callable
from functools import cached_property

from difftrain.model.generate.engine import choose
from difftrain.model.generate.request import Engine
from difftrain.model.load import Loaded, load
from difftrain.settings import RunConfig


class Asking:
    """Holds the model, and the engine, that probe and evaluation of the base share."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @cached_property
    def model(self) -> Loaded:
        """The loaded base model."""
        data = self.config.data
        return load(self.config.model, data.min_pixels, data.max_pixels)

    @property
    def loaded(self) -> Callable[[], Loaded]:
        """What a stage calls if there is something left to measure."""
        return lambda: self.model

    @cached_property
    def _engine(self) -> Engine:
        return choose(self.config.model, self.loaded)

    @property
    def engine(self) -> Callable[[], Engine]:
        """What a stage calls if there is something left to ask."""
        return lambda: self._engine

    def release(self) -> None:
        """Forget the model, so that training has the memory."""
        if "_engine" in self.__dict__:
            self.__dict__.pop("_engine").close()
        self.__dict__.pop("model", None)

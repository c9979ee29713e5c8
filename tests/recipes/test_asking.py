"""What is held while somebody else is to answer: vLLM wants a GPU that is free."""

from importlib.util import find_spec

import pytest

from difftrain.config.engine import EngineKind
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.model.loading import LoadedModel
from difftrain.recipes.asking import Asking


class Holding:
    """Stands where a started vLLM stands, which needs a GPU."""

    closed = False

    def close(self) -> None:
        self.closed = True


def asking(kind: EngineKind, tiny: LoadedModel) -> tuple[Asking, Holding]:
    """One that holds the model, as after the preflight, and an engine for some pixel limits."""
    config = RunConfig()
    config.model.engine = kind
    found, held = Asking(config), Holding()
    found.__dict__["model"] = tiny
    found._engines[784, 7840] = held  # type: ignore[assignment]
    return found, held


@pytest.mark.skipif(find_spec("vllm") is not None, reason="would start vLLM")
def test_before_vllm_starts_the_model_and_every_other_engine_are_let_go(tiny: LoadedModel) -> None:
    made, held = asking(EngineKind.vllm, tiny)
    assert made.engine(784, 7840) is held
    assert "model" in made.__dict__
    assert not held.closed
    with pytest.raises(ConfigError, match="vLLM cannot be imported"):
        made.engine(784, 78400)
    assert held.closed
    assert "model" not in made.__dict__


def test_in_this_process_one_model_serves_all_pixel_limits(tiny: LoadedModel) -> None:
    made, held = asking(EngineKind.hf, tiny)
    made.engine(784, 78400)
    assert made.engine(784, 7840) is held
    assert not held.closed
    assert made.model is tiny

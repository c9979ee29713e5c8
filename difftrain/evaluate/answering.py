"""Items put to a model: every benchmark's pictures inside its own pixel limits.

An item whose picture is missing or broken is not asked, and its response says so; likewise one
that the engine got no answer for, which is asked again by the next run (responses.py).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from difftrain.config.run_config import RunConfig
from difftrain.evaluate import scoring
from difftrain.evaluate.asking import Asked, request
from difftrain.images import ImageError, PixelBudget
from difftrain.model.engines import types
from difftrain.model.engines.types import Engine, GenerationError, Request
from difftrain.pipeline import coordination
from difftrain.pipeline.coordination import World


def budgets(config: RunConfig) -> dict[str, PixelBudget]:
    """The pixel limits of each wanted benchmark."""
    drawn = config.data.min_pixels, config.data.max_pixels
    evaluate = config.evaluate
    return {name: PixelBudget(*evaluate.pixels(name, drawn)) for name in evaluate.benchmarks}


def widest(config: RunConfig) -> tuple[int, int]:
    """The limits of an engine that leaves the pictures of all wanted benchmarks alone."""
    every = budgets(config).values()
    return min(b.min_pixels for b in every), max(b.max_pixels for b in every)


def ready(
    make: Callable[[int, int], Engine], config: RunConfig, folder: Path, world: World
) -> Engine:
    """An engine with the `widest` limits; the folder of its answers says who it is."""
    with coordination.heartbeat(folder, world):
        engine = make(*widest(config))
    types.write_engine_info(folder, engine.info)
    return engine


def responses(
    engine: Engine,
    some: Iterable[Asked],
    config: RunConfig,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, str]]:
    """What an engine with the `widest` limits says to each item, with its place among them.

    In any order, each as it comes; scoring.not_asked or no_answer where nothing is said. A picture
    is read when its item is asked, not before. `alive` is called now and then meanwhile. Raises
    what the engine raises when it is gone for good.
    """
    pixels = budgets(config)
    waiting, unasked = enumerate(some), deque[tuple[int, str]]()

    def more(room: int) -> list[tuple[int, Request]]:
        taken: list[tuple[int, Request]] = []
        while len(taken) < room and (following := next(waiting, None)):
            place, asked = following
            try:
                taken.append((place, request(asked, config.evaluate, pixels[asked.benchmark])))
            except ImageError as error:
                unasked.append((place, scoring.not_asked(str(error))))
        return taken

    for place, found in engine.stream(more, alive):
        without = isinstance(found, GenerationError)
        yield place, scoring.no_answer(found.reason) if without else found.text
        while unasked:
            yield unasked.popleft()
    yield from unasked

"""Items put to a model: every benchmark's pictures inside its own pixel limits.

An item whose picture is missing or broken is not asked, and its response says so.
"""

from collections.abc import Sequence

from difftrain.data.images import Budget
from difftrain.data.quarantine import Unusable
from difftrain.evaluate import scoring
from difftrain.evaluate.asking import Asked, request
from difftrain.model.generate import hf
from difftrain.model.generate.request import Request
from difftrain.model.load import Loaded, within
from difftrain.settings import RunConfig


def budgets(config: RunConfig) -> dict[str, Budget]:
    """The pixel limits of each wanted benchmark."""
    drawn = config.data.min_pixels, config.data.max_pixels
    evaluate = config.evaluate
    return {name: Budget(*evaluate.pixels(name, drawn)) for name in evaluate.benchmarks}


def fitting(loaded: Loaded, config: RunConfig) -> Loaded:
    """The model with a processor that leaves the pictures of all wanted benchmarks alone."""
    every = budgets(config).values()
    least, most = min(b.min_pixels for b in every), max(b.max_pixels for b in every)
    return within(loaded, least, most)


def responses(loaded: Loaded, some: Sequence[Asked], config: RunConfig) -> list[str]:
    """What a `fitting` model says to each item; scoring.not_asked where a picture is missing."""
    pixels = budgets(config)
    said: dict[int, str] = {}
    requests: dict[int, Request] = {}
    for place, asked in enumerate(some):
        try:
            requests[place] = request(asked, config.evaluate, pixels[asked.benchmark])
        except Unusable as error:
            said[place] = scoring.not_asked(error.reason)
    answers = hf.answers(loaded, list(requests.values()), config.model.batch_size)
    said |= {place: answer.text for place, answer in zip(requests, answers, strict=True)}
    return [said[place] for place in range(len(some))]

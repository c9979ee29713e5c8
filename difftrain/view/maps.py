"""Computes attention maps in a background thread, with a model that is loaded only once."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np

from difftrain.config.data import DataConfig
from difftrain.config.difficulty import CmabConfig, ProbeConfig, TextSpan
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import RunConfig
from difftrain.difficulty import cmab
from difftrain.grade import extract
from difftrain.model import resolve
from difftrain.probe.run import engine_request
from difftrain.probe.schedule import ProbeRequest
from difftrain.records import Rollout, Sample, View
from difftrain.view.folders import ViewFolders, settings_section
from difftrain.view.sample import SampleReader, layer_ratios

logger = logging.getLogger(__name__)

MAX_MAPS = 64  # that are kept in memory
DIGITS = 7  # of attention weights in the page's data
MapKey = tuple[str, int, int]  # sample id, mask percent and draw of a response


class MapUnavailable(ValueError):
    """Why a response has no attention map."""


def model_settings(folders: ViewFolders, config: RunConfig) -> tuple[ModelConfig, DataConfig]:
    """The model and pixel limits of the probe: those of the run, else those of the command line.

    Raises MapUnavailable if the command line names another model than the probe used.
    """
    if folders.settings is None:
        model, data = config.model, config.data
    else:
        model = settings_section(folders, "model", ModelConfig)
        data = settings_section(folders, "data", DataConfig)
    expected = folders.probe_manifest["inputs"]["model"]
    if resolve.identity(model.name, model.revision) != expected:
        raise MapUnavailable(
            f"the probe used another model than {model.name}: start  difftrain view FOLDER "
            "model=NAME  with the probe's model"
        )
    return model, data


def answer_tokens(decoded_lengths_T: Sequence[int], text: str) -> list[int]:
    """The indices of the response tokens inside the last <answer> tag; empty without a tag.

    `decoded_lengths_T` has the length of the text up to and with each token.
    """
    start = text.rfind(extract.OPEN_TAG)
    if start < 0:
        return []
    start += len(extract.OPEN_TAG)
    end = text.find(extract.CLOSE_TAG, start)
    end = len(text) if end < 0 else end
    starts_T = [0, *decoded_lengths_T[:-1]]
    return [
        token
        for token, (first, last) in enumerate(zip(starts_T, decoded_lengths_T, strict=True))
        if last > start and first < end
    ]


class MapMaker:
    """Attention maps of responses with an image, one at a time, in a thread of its own.

    `config` are the settings of the command line; a run's own settings come first.
    """

    def __init__(self, reader: SampleReader, config: RunConfig) -> None:
        self.reader, self.config = reader, config
        self._executor = ThreadPoolExecutor(1, "attention-maps")
        self._jobs: OrderedDict[MapKey, Future[dict[str, Any]]] = OrderedDict()
        self._lock = Lock()
        self._loaded: Any = None

    def request(self, key: MapKey) -> dict[str, Any]:
        """The map, or its status: {"status": running, failed or done}. The first call starts it."""
        with self._lock:
            if key not in self._jobs:
                self._jobs[key] = self._executor.submit(self._compute, *key)
                while len(self._jobs) > MAX_MAPS:
                    self._jobs.popitem(last=False)[1].cancel()
            job = self._jobs[key]
        if not job.done():
            return {"status": "running"}
        error = job.exception()
        if error is None:
            return {"status": "done"} | job.result()
        with self._lock:
            self._jobs.pop(key, None)  # the next request tries again
        logger.warning("no attention map of %s: %s", key, error)
        return {"status": "failed", "error": f"{type(error).__name__}: {error}"}

    def close(self) -> None:
        """Drop the maps that have not been started."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _rollout(self, sample_id: str, percent: int, draw: int) -> Rollout:
        for row in self.reader.rollouts(sample_id):
            if (row.mask_percent, row.draw) == (percent, draw) and row.view is not View.text_only:
                return row
        raise MapUnavailable(f"the probe has no response at {percent} % masked, draw {draw}")

    def _compute(self, sample_id: str, percent: int, draw: int) -> dict[str, Any]:
        sample, rollout = self.reader.sample(sample_id), self._rollout(sample_id, percent, draw)
        if not len(sample.images):
            raise MapUnavailable("the sample has no image")
        if not rollout.num_tokens:
            raise MapUnavailable("the response is empty")
        if self._loaded is None:
            from difftrain.model.loading import load

            model, data = model_settings(self.reader.folders, self.config)
            logger.info("loading %s for attention maps", model.name)
            self._loaded = load(model, data.min_pixels, data.max_pixels)
        return response_map(self._loaded, sample, rollout, self.reader.probe, self.reader.seed)


def response_map(
    loaded: Any, sample: Sample, rollout: Rollout, probe: ProbeConfig, seed: int
) -> dict[str, Any]:
    """Where the response looked: by group of tokens and layer, a weight for each image token.

    `seed` is the run's, from which the response's mask follows. `grids` has rows and columns of
    each image's tokens; `maps` {group: L x I} has the tokens of all images one after the other, in
    reading order. `ratio` is CMAB's by layer, `balance` its value.
    """
    from difftrain.model import attention
    from difftrain.model.attention_map import image_token_map
    from difftrain.model.engines import kv_cache
    from difftrain.probe.attention_pass import append_responses, response_token_ids

    tokenizer = loaded.processor.tokenizer
    response = response_token_ids(loaded, rollout)
    request = ProbeRequest(sample, rollout.mask_percent, rollout.draw)
    prompt = kv_cache.encode(loaded, [engine_request(request, probe, seed)])
    inputs = append_responses(prompt, [response], tokenizer.pad_token_id)
    spans = attention.token_spans(inputs, [len(response)], loaded.image_token, TextSpan.prompt)
    lengths_T = [len(tokenizer.decode(response[: end + 1])) for end in range(len(response))]
    groups = {"response": list(range(len(response)))}
    if inside := answer_tokens(lengths_T, tokenizer.decode(response)):
        groups["answer"] = inside
    result = image_token_map(loaded.model, inputs, spans, list(groups.values()))
    merge = loaded.processor.image_processor.merge_size
    grids = [(int(h) // merge, int(w) // merge) for _, h, w in prompt["image_grid_thw"].tolist()]
    image_LT, text_LT = np.asarray(result.image_LT), np.asarray(result.text_LT)
    epsilon = CmabConfig().epsilon
    has_inner_layers = len(image_LT) >= 3
    return {
        "grids": grids,
        "tokens": {name: len(members) for name, members in groups.items()},
        "maps": {
            name: np.asarray(map_LI, dtype=float).round(DIGITS).tolist()
            for name, map_LI in zip(groups, result.image_PLI, strict=True)
        },
        "ratio": layer_ratios(image_LT, text_LT, epsilon),
        "balance": cmab.balance(image_LT, text_LT, epsilon) if has_inner_layers else None,
    }

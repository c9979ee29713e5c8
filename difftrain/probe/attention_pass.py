"""Measures what the probe's responses attend to, in one teacher-forced pass over each of them.

Two difficulty measures need this attention. CMAB uses a sample's first correct response to the full
image, ACE the first response, correct or not. If both are the same response, the sample has only
one row. A response without tokens has no row. Axes: B batch, S tokens, L layers, T response tokens.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from difftrain.config.run_config import RunConfig
from difftrain.model import attention, family, loading
from difftrain.model.engines import kv_cache
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat, run_shared_stage
from difftrain.probe.run import engine_request
from difftrain.probe.schedule import ProbeRequest, without_failed
from difftrain.records import Attention, Measure, Rollout, Sample, Verdict, View

logger = logging.getLogger(__name__)

T = TypeVar("T")  # what is measured
R = TypeVar("R")  # a row of the results

ResponseKey = tuple[str, int]  # the sample_id and draw of a response
Pair = tuple[Sample, Rollout]  # a sample and one response to it


def responses_to_measure(
    rollouts: Iterable[Rollout], measures: Sequence[Measure], draws: int
) -> dict[ResponseKey, Rollout]:
    """The responses that CMAB and ACE measure; CMAB's is one of the first `draws`."""
    full_image = [row for row in rollouts if row.view is View.full_image]
    with_tokens = [row for row in full_image if row.num_tokens or row.response]
    correct = [row for row in with_tokens if row.verdict is Verdict.correct and row.draw < draws]
    selected: list[Rollout] = []
    if Measure.ace in measures:
        selected += [row for row in with_tokens if row.draw == 0]
    if Measure.cmab in measures:
        last_first = sorted(correct, key=lambda row: -row.draw)  # so the dict keeps the first
        selected += {row.sample_id: row for row in last_first}.values()
    return {(row.sample_id, row.draw): row for row in selected}


def pairs_to_measure(
    samples: Sequence[Sample], probe_folder: Path, measures: Sequence[Measure], draws: int
) -> dict[ResponseKey, Pair]:
    """The samples and responses to measure, sorted by key; all ranks get the same ones.

    So samples with a failed request are left out: another rank may still add rollouts of them.
    """
    by_id = {sample.sample_id: sample for sample in without_failed(samples, probe_folder)}
    responses = responses_to_measure(parquet.read_rows(probe_folder, Rollout), measures, draws)
    return {key: (by_id[key[0]], row) for key, row in sorted(responses.items()) if key[0] in by_id}


def response_token_ids(loaded: LoadedModel, rollout: Rollout) -> tuple[int, ...]:
    """The response's tokens; if a server returned only text, the tokens of the text and EOS.

    The server may have sampled other tokens, since several token sequences can give the same text.
    """
    if rollout.token_ids:
        return rollout.token_ids
    tokenizer = loaded.processor.tokenizer
    ids = tokenizer(rollout.response, add_special_tokens=False, split_special_tokens=True)
    return (*ids["input_ids"], *([tokenizer.eos_token_id] * rollout.hit_eos))


def append_responses(
    inputs: dict[str, torch.Tensor], responses: Sequence[tuple[int, ...]], pad_id: int
) -> dict[str, torch.Tensor]:
    """The prompts' inputs with each response appended, padded on the left to one length."""
    type_keys = {*family.per_token_keys(inputs)} - {"input_ids", "attention_mask"}
    ids: list[torch.Tensor] = []
    types: dict[str, list[torch.Tensor]] = {key: [] for key in type_keys}
    for i, response in enumerate(responses):
        is_prompt = inputs["attention_mask"][i].bool()
        response_ids = torch.tensor(response, dtype=torch.long, device=is_prompt.device)
        ids.append(torch.cat([inputs["input_ids"][i][is_prompt], response_ids]))
        for key in type_keys:  # pads with 0: text
            types[key].append(functional.pad(inputs[key][i][is_prompt], (0, len(response))))
    pad_left = partial(pad_sequence, batch_first=True, padding_side="left")
    return {
        **inputs,
        **{key: pad_left(rows) for key, rows in types.items()},
        "input_ids": pad_left(ids, padding_value=pad_id),
        "attention_mask": pad_left([torch.ones_like(row) for row in ids]),
    }


def measure_batch(
    loaded: LoadedModel, pairs: Sequence[Pair], config: RunConfig, seed: int
) -> list[Attention]:
    """Attention rows of one batch of responses to the full image (0 percent hidden)."""
    if not family.takes_area(loaded.processor.image_processor):
        with_images = [pair for pair in pairs if pair[0].images]
        if 0 < len(with_images) < len(pairs):  # such processors refuse to mix them
            others = [pair for pair in pairs if not pair[0].images]
            batches = (with_images, others)
            return [row for b in batches for row in measure_batch(loaded, b, config, seed)]
    unmasked = [ProbeRequest(sample, percent=0, draw=row.draw) for sample, row in pairs]
    requests = [engine_request(request, config.probe, seed) for request in unmasked]
    responses = [response_token_ids(loaded, rollout) for _, rollout in pairs]
    pad_id = loaded.processor.tokenizer.pad_token_id
    inputs = append_responses(kv_cache.encode(loaded, requests), responses, pad_id)
    difficulty, lengths = config.difficulty, [len(response) for response in responses]
    text_span = difficulty.cmab.text  # which tokens count as text: all or those before the image
    spans = attention.token_spans(inputs, lengths, loaded.image_token, text_span)
    ace_config = difficulty.ace if Measure.ace in difficulty.measures else None
    summaries = attention.summarize(loaded.model, inputs, spans, ace_config)
    return [
        Attention(
            sample_id=sample.sample_id,
            draw=rollout.draw,
            image_tokens=int(spans.image_BS[i].sum()),
            text_tokens=int(spans.text_BS[i].sum()),
            image_LT=tuple(map(tuple, summaries[i].image_LT.tolist())),
            text_LT=tuple(map(tuple, summaries[i].text_LT.tolist())),
            max_log_psi=summaries[i].max_log_psi,  # ACE's value
        )
        for i, (sample, rollout) in enumerate(pairs)
    ]


def measure_halving(measure: Callable[[Sequence[T]], list[R]], batch: Sequence[T]) -> list[R]:
    """The rows of a batch. Measures it in halves if it is too large for the memory."""
    try:
        return measure(batch)
    except (RuntimeError, MemoryError) as error:
        if not loading.is_out_of_memory(error) or len(batch) == 1:
            raise
    logger.warning("out of memory with a batch of %d responses: halving it", len(batch))
    loading.free_memory()
    half = len(batch) // 2
    return measure_halving(measure, batch[:half]) + measure_halving(measure, batch[half:])


def measured_layers(config: RunConfig) -> dict[str, str]:
    """For the manifest: CMAB's and ACE's layers, if some of the model lack full attention."""
    architecture = loading.load_architecture(config.model)
    if len(measured := family.measured_layers(architecture)) == len(
        family.layer_types(architecture)
    ):
        return {}
    balance = family.layers_text(family.balance_layers(architecture), architecture)
    return {"cmab_layers": balance, "ace_layer": str(measured[-1])}


def run_attention_pass(
    load: Callable[[], LoadedModel],
    samples: Sequence[Sample],
    probe_folder: Path,
    folder: Path,
    world: World,
    config: RunConfig,
    seed: int,
) -> None:
    """Write a row for every response to measure into `folder`; resumable, shared by all ranks."""
    difficulty, measures = config.difficulty, config.difficulty.measures
    batch_size = config.model.attention_batch_size
    pairs: dict[ResponseKey, Pair] = {}
    measured: set[ResponseKey] = set()
    parts_read: set[Path] = set()

    def find_pairs() -> None:
        pairs.clear()
        pairs.update(pairs_to_measure(samples, probe_folder, measures, config.probe.draws))

    def all_pairs_measured() -> bool:
        for part in {*parquet.parts(folder)} - parts_read:
            measured.update(zip(*parquet.read_columns(part, ("sample_id", "draw")), strict=True))
            parts_read.add(part)
        return measured >= pairs.keys()

    def is_manifest_current(_: Mapping[str, Any]) -> bool:
        # After the manifest was written, the probe of another run may have added correct draws.
        if not pairs:
            find_pairs()
        return all_pairs_measured()

    def work(heart: Heartbeat) -> None:
        find_pairs()  # now that no other launch writes into the probe's folder
        all_pairs_measured()  # reads what has been measured already
        share = [pair for key, pair in world.share(list(pairs.items())) if key not in measured]
        if not share:
            return
        with heart.in_background():
            loaded = load()
        measure = partial(measure_batch, loaded, config=config, seed=seed)
        share.sort(key=lambda pair: (len(pair[0].question), pair[1].num_tokens))  # to pad less
        starts = range(0, len(share), batch_size)
        for start in tqdm(starts, desc="attention", unit="batch", disable=not world.is_first):
            rows = measure_halving(measure, share[start : start + batch_size])
            parquet.write_part(folder, parquet.next_part_name(folder, world.rank), rows)
            heart.beat()

    ace = asdict(difficulty.ace) if Measure.ace in measures else None
    run_shared_stage(
        folder,
        world,
        work,
        is_complete=all_pairs_measured,
        close=lambda: {"responses": len(pairs)},  # the counts for the manifest
        # text: which tokens count as text
        settings=lambda: {"text": difficulty.cmab.text, "ace": ace, **measured_layers(config)},
        inputs={"probe": probe_folder.name},
        is_finished=is_manifest_current,
        lock=probe_folder,  # so that no launch adds rollouts meanwhile
    )

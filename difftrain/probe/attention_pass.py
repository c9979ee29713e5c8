"""Where answers looked: one teacher-forced pass over prompt and response of each sample.

CMAB measures the sample's first whole-image rollout that is right, ACE its first one whatever its
verdict; where they are one and the same, so is the row. A sample without such a response, or whose
response holds no token, has no row. Axes: B batch, S sequence, L layers, T response tokens.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm

from difftrain.config import run_config
from difftrain.model import attention, loading
from difftrain.model.engines import kv_cache
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.probe import state
from difftrain.probe.elapsed import ElapsedSeconds
from difftrain.probe.requests import ProbeRequest, model_request
from difftrain.records import Attention, Measure, Rollout, Sample, Verdict, View

Pair = tuple[Sample, Rollout]


def responses_to_measure(
    rollouts: Iterable[Rollout], config: run_config.RunConfig
) -> dict[tuple[str, int], Rollout]:
    """The responses to measure, by (sample_id, draw): what CMAB and what ACE look at."""
    wanted, draws = config.difficulty.measures, config.probe.draws
    found: dict[tuple[str, int], Rollout] = {}
    right: dict[str, Rollout] = {}
    for each in rollouts:
        if each.view is not View.full_image or not (each.num_tokens or each.response):
            continue
        if each.draw == 0 and Measure.ace in wanted:
            found[each.sample_id, 0] = each
        if each.verdict is Verdict.correct and each.draw < draws:
            first = right.get(each.sample_id)
            if first is None or each.draw < first.draw:
                right[each.sample_id] = each
    if Measure.cmab in wanted:
        found |= {(each.sample_id, each.draw): each for each in right.values()}
    return found


def response_token_ids(loaded: LoadedModel, rollout: Rollout) -> tuple[int, ...]:
    """The response's tokens; where a server gave only words, these words' tokens and the end.

    They need not be the ones that the server drew: several rows of tokens can spell one text.
    """
    if rollout.token_ids:
        return rollout.token_ids
    tokenizer = loaded.processor.tokenizer
    ids = tokenizer(rollout.response, add_special_tokens=False, split_special_tokens=True)
    return (*ids["input_ids"], *([tokenizer.eos_token_id] * rollout.hit_eos))


def append_responses(
    inputs: dict[str, torch.Tensor], responses: Sequence[tuple[int, ...]], pad: int
) -> dict[str, torch.Tensor]:
    """The prompts' inputs with each response appended, padded on the left to one length."""
    rows, kinds = [], []
    for place, response in enumerate(responses):
        keep = inputs["attention_mask"][place].bool()
        tail = torch.tensor(response, dtype=torch.long, device=keep.device)
        rows.append(torch.cat([inputs["input_ids"][place][keep], tail]))
        kinds.append(functional.pad(inputs["mm_token_type_ids"][place][keep], (0, len(response))))
    longest = max(len(row) for row in rows)

    def stacked(parts: list[torch.Tensor], fill: int) -> torch.Tensor:
        return torch.stack(
            [functional.pad(part, (longest - len(part), 0), value=fill) for part in parts]
        )

    return {
        **inputs,
        "input_ids": stacked(rows, pad),
        "mm_token_type_ids": stacked(kinds, 0),
        "attention_mask": stacked([torch.ones_like(row) for row in rows], 0),
    }


def measure_batch(
    loaded: LoadedModel, pairs: Sequence[Pair], config: run_config.RunConfig
) -> list[Attention]:
    """Attention rows of one batch of (sample, response)."""
    requests = [
        model_request(ProbeRequest(sample, 0, rollout.draw), config.probe, config.seed)
        for sample, rollout in pairs
    ]
    responses = [response_token_ids(loaded, rollout) for _, rollout in pairs]
    pad = loaded.processor.tokenizer.pad_token_id
    inputs = append_responses(kv_cache.encode(loaded, requests), responses, pad)
    found = attention.token_spans(
        inputs["input_ids"],
        inputs["attention_mask"],
        [len(response) for response in responses],
        loaded.image_token,
        config.difficulty.cmab.text,
    )
    ace = config.difficulty.ace if Measure.ace in config.difficulty.measures else None
    looks = attention.summarize(
        loaded.model, inputs, found.image_BS, found.text_BS, found.response_BS, ace
    )
    return [
        Attention(
            sample_id=sample.sample_id,
            draw=rollout.draw,
            image_tokens=int(found.image_BS[row].sum()),
            text_tokens=int(found.text_BS[row].sum()),
            image_LT=tuple(map(tuple, looks[row].image_LT.tolist())),
            text_LT=tuple(map(tuple, looks[row].text_LT.tolist())),
            max_log_psi=looks[row].max_log_psi,
        )
        for row, (sample, rollout) in enumerate(pairs)
    ]


def measure_in_memory(
    loaded: LoadedModel, pairs: Sequence[Pair], config: run_config.RunConfig
) -> list[Attention]:
    """`measure`, in halves where memory does not hold the batch; raises what one pair raises."""
    try:
        return measure_batch(loaded, pairs, config)
    except (RuntimeError, MemoryError) as error:
        if not loading.is_out_of_memory(error) or len(pairs) == 1:
            raise
    half = len(pairs) // 2
    told = f"out of memory with {len(pairs)} responses at once: measured in two halves"
    print(told, file=sys.stderr, flush=True)
    loading.free_memory()
    return measure_in_memory(loaded, pairs[:half], config) + measure_in_memory(
        loaded, pairs[half:], config
    )


def run_share(
    loaded: LoadedModel,
    pairs: Sequence[Pair],
    folder: Path,
    config: run_config.RunConfig,
    world: World,
    spent: ElapsedSeconds,
) -> None:
    """Measure these pairs in batches of like length; each batch is written as a part."""
    ordered = sorted(pairs, key=lambda pair: (len(pair[0].question), pair[1].num_tokens))
    size = config.model.attention_batch_size
    for start in tqdm(
        range(0, len(ordered), size), desc="attention", unit="batch", disable=not world.is_first
    ):
        rows = measure_in_memory(loaded, ordered[start : start + size], config)
        parquet.write_part(folder, parquet.next_part(folder, world.rank), rows)
        coordination.beat(folder, world)
        spent.beat()


def pairs_to_measure(
    samples: Sequence[Sample], probe: Path, config: run_config.RunConfig
) -> dict[tuple[str, int], Pair]:
    """What to measure, by (sample_id, draw) in its order; the same for every rank of a settled
    probe. Of a sample set aside another rank may still write answers, so it is never among them."""
    by_id = {sample.sample_id: sample for sample in state.without_failed(samples, probe)}
    responses = responses_to_measure(parquet.read(probe, Rollout), config)
    return {
        key: (by_id[key[0]], each) for key, each in sorted(responses.items()) if key[0] in by_id
    }


def run_attention_pass(
    load: Callable[[], LoadedModel],
    samples: Sequence[Sample],
    probe: Path,
    folder: Path,
    config: run_config.RunConfig,
    world: World,
) -> None:
    """Fill the attention folder from the probe's responses; resumable and sharded."""
    spent = ElapsedSeconds(folder, world)
    wanted = pairs_to_measure(samples, probe, config)

    seen: set[Path] = set()
    there: set[tuple[str, int]] = set()

    def done() -> set[tuple[str, int]]:
        for part in parquet.parts(folder):
            if part not in seen:
                there.update(zip(*parquet.columns(part, ("sample_id", "draw")), strict=True))
                seen.add(part)
        return there

    # The probe's store may have grown since: another tau can bring the first right answer.
    if manifest.read_manifest(folder) is not None and done() >= wanted.keys():
        return
    coordination.beat(folder, world)
    known = set(done())
    share = [pair for key, pair in world.share(list(wanted.items())) if key not in known]
    if share:
        with coordination.heartbeat(folder, world):
            loaded = load()
        run_share(loaded, share, folder, config, world, spent)
    if not world.is_first:
        return coordination.wait(
            folder,
            world,
            lambda: manifest.read_manifest(folder) is not None and done() >= wanted.keys(),
        )

    def complete() -> bool:
        spent.beat()
        return done() >= wanted.keys()

    coordination.wait(folder, world, complete)
    before = manifest.read_manifest(folder) or {"seconds": 0.0}
    ace = (
        run_config.plain(config.difficulty.ace)
        if Measure.ace in config.difficulty.measures
        else None
    )
    manifest.write_manifest(
        folder,
        settings={"text": config.difficulty.cmab.text, "ace": ace},
        inputs={"probe": probe.name},
        seconds=before["seconds"] + spent.total(),
        counts={"responses": len(wanted)},
    )
    spent.clear()
    coordination.remove_heartbeats(folder)

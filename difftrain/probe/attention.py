"""Where right answers looked: one teacher-forced pass over prompt and response of each sample.

The response measured is the sample's first whole-image rollout that is right; samples without one
have no row. Axes: B batch, S sequence, L layers, T response tokens.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm

from difftrain import artefacts, heartbeat, lineage, settings
from difftrain.difficulty.config import TextSpan
from difftrain.model import attention, spans
from difftrain.model.generate import hf
from difftrain.model.load import Loaded
from difftrain.probe.rollouts import Draw, request, whole
from difftrain.records import Attention, Rollout, Sample, Verdict
from difftrain.world import World

Pair = tuple[Sample, Rollout]


def first_right(rollouts: Iterable[Rollout]) -> dict[str, Rollout]:
    """For each solved sample, its first whole-image rollout that is right."""
    rows: dict[str, list[Rollout]] = {}
    for each in rollouts:
        if each.verdict is Verdict.right and each.token_ids:
            rows.setdefault(each.sample_id, []).append(each)
    found = {sample_id: whole(group) for sample_id, group in rows.items()}
    return {sample_id: group[0] for sample_id, group in found.items() if group}


def teacher_forced(
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


def measure(
    loaded: Loaded, pairs: Sequence[Pair], text: TextSpan, config: settings.RunConfig
) -> list[Attention]:
    """Attention rows of one batch of (sample, response)."""
    requests = [
        request(Draw(sample, 0, rollout.draw), config.probe, config.seed)
        for sample, rollout in pairs
    ]
    responses = [rollout.token_ids for _, rollout in pairs]
    pad = loaded.processor.tokenizer.pad_token_id
    inputs = teacher_forced(hf.encode(loaded, requests), responses, pad)
    found = spans.spans(
        inputs["input_ids"],
        inputs["attention_mask"],
        [len(response) for response in responses],
        loaded.image_token,
        text,
    )
    tables = attention.masses(
        loaded.model, inputs, found.image_BS, found.text_BS, found.response_BS
    )
    return [
        Attention(
            sample_id=sample.sample_id,
            draw=rollout.draw,
            image_tokens=int(found.image_BS[row].sum()),
            text_tokens=int(found.text_BS[row].sum()),
            image_LT=tuple(map(tuple, tables[row][0].tolist())),
            text_LT=tuple(map(tuple, tables[row][1].tolist())),
        )
        for row, (sample, rollout) in enumerate(pairs)
    ]


def run_share(
    loaded: Loaded, pairs: Sequence[Pair], folder: Path, config: settings.RunConfig, world: World
) -> None:
    """Measure these pairs in batches of like length; each batch is written as a part."""
    ordered = sorted(pairs, key=lambda pair: (len(pair[0].question), len(pair[1].token_ids)))
    size = config.model.attention_batch_size
    for start in tqdm(
        range(0, len(ordered), size), desc="attention", unit="batch", disable=not world.is_first
    ):
        text = config.difficulty.cmab.text
        rows = measure(loaded, ordered[start : start + size], text, config)
        artefacts.write_part(folder, artefacts.next_part(folder, world.rank), rows)
        heartbeat.beat(folder, world)


def run(
    load: Callable[[], Loaded],
    samples: Sequence[Sample],
    probe: Path,
    folder: Path,
    config: settings.RunConfig,
    world: World,
) -> None:
    """Fill the attention folder from the probe's right answers; resumable and sharded."""
    started = time.time()
    right = first_right(artefacts.read(probe, Rollout))
    pairs = [(each, right[each.sample_id]) for each in samples if each.sample_id in right]
    done = {each.sample_id for each in artefacts.read(folder, Attention)}
    # The probe's store may have grown since: another tau can bring the first right answer.
    if lineage.read_made(folder) is not None and done >= right.keys():
        return
    heartbeat.beat(folder, world)
    share = [pair for pair in world.share(pairs) if pair[0].sample_id not in done]
    if share:
        run_share(load(), share, folder, config, world)
    if not world.is_first:
        return heartbeat.wait(folder, world, lambda: lineage.read_made(folder) is not None)

    def everything() -> bool:
        return {row.sample_id for row in artefacts.read(folder, Attention)} >= {
            sample.sample_id for sample, _ in pairs
        }

    heartbeat.wait(folder, world, everything)
    lineage.write_made(
        folder,
        settings={"text": config.difficulty.cmab.text},
        inputs={"probe": probe.name},
        seconds=time.time() - started,
        counts={"responses": len(pairs)},
    )
    heartbeat.clear(folder)

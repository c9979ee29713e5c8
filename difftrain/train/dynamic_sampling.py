"""GRPO on groups that give a gradient: DAPO's dynamic sampling, and the log of what was sampled.

A group whose completions all get the same reward has zero variance: its advantages are zero. Here

* such groups are replaced by further prompts, round by round (`grpo.dynamic_sampling`);
* groups beyond the batch are carried to the next one, with the log-probabilities of the policy that
  generated them, so that the importance ratio stays right;
* zero-variance groups that remain may leave the loss (`grpo.zero_variance`);
* our sampler may choose the prompts (`grpo.sampler`, select/prompt_history.py).

No method of TRL is copied. TRL's `_generate` and `_calculate_rewards` run once for each round. Then
TRL's `_generate_and_score_completions` runs once on the chosen groups, while those two return what
they have returned before, so that padding, images, advantages and logging stay TRL's.

Every process holds all groups and all rewards of a round (token ids, not images), so all processes
decide alike, without further messages.
"""

import json
import logging
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from trl.data_utils import prepare_multimodal_messages

from difftrain.config.train import GrpoConfig, ZeroVariance
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import RaisedByAllRanks
from difftrain.select import EmptySelectionError
from difftrain.select.prompt_history import PromptHistory, zero_variance
from difftrain.train import callbacks
from difftrain.train.grpo_trainer import SharedPromptTrainer

logger = logging.getLogger(__name__)

STATE = "prompt_state.json"
"""In a checkpoint: the prompts' history and the carried groups."""
GROUPS, TOKENS = "groups_asked", "generated_tokens"
"""Keys of the log: the groups sampled in a step, and the tokens of their completions."""
ROW_MEANS = ("grpo", "sapo", "luspo", "dr_grpo")
"""Loss types that divide by the number of rows; bnpo divides by the tokens of a pass, and the
others by num_items_in_batch."""


class DeadPoolError(EmptySelectionError, RaisedByAllRanks):
    """No prompt gave a group with unequal rewards, so nothing could be trained."""


@dataclass(slots=True)
class RolloutGroup:
    """The G completions of a prompt, as TRL's `_generate` returns them, and their rewards."""

    index: int  # of the prompt in the training data
    step: int  # optimizer steps before it was generated
    prompt_ids: list[int]
    completion_ids: list[list[int]]
    completions: list[Any]
    sampling_logps: list[list[float | None]] | None  # vLLM's
    rewards: list[list[float]]  # of each completion by each reward function
    is_dead: bool = False  # zero variance
    logps: list[list[float]] | None = None
    """Carried groups only: log-probabilities by the policy that generated the group."""


@dataclass(slots=True)
class Replay:
    """What TRL's methods return again for this process's share of the chosen groups."""

    groups: list[RolloutGroup]
    rewards: Tensor  # of all processes
    policy_logps: Tensor | None = None  # what TRL has computed

    def generated(self) -> tuple[Any, ...]:
        """The results of TRL's `_generate`. TRL takes the images from the rows again."""
        per_group = [len(group.completion_ids) for group in self.groups]
        numbered = list(zip(self.groups, per_group, strict=True))
        logps = [logps for group in self.groups for logps in group.sampling_logps or ()]
        return (
            [group.prompt_ids for group, count in numbered for _ in range(count)],
            [ids for group in self.groups for ids in group.completion_ids],
            None,  # tool mask
            [completion for group in self.groups for completion in group.completions],
            logps or None,
            {},  # extra fields
            None,  # images
            [],  # tool images
        )

    def put_generation_logps(self, logps_BC: Tensor) -> None:
        """Keep what TRL has computed, and overwrite it with carried groups' own values."""
        self.policy_logps = logps_BC.clone()
        row = 0
        for group in self.groups:
            for number in range(len(group.completion_ids)):
                if group.logps is not None:
                    values = logps_BC.new_tensor(group.logps[number])
                    logps_BC[row, : len(values)] = values
                row += 1


class DynamicSamplingTrainer(SharedPromptTrainer):
    """SharedPromptTrainer that chooses the groups on which it trains."""

    accelerator: Any
    num_generations: Any
    train_dataset: Any
    shuffle_dataset: Any

    grpo: GrpoConfig = GrpoConfig()
    history: PromptHistory | None = None
    """None: TRL's sampler chooses the prompts, and all groups are trained on."""
    log_folder: Path | None = None
    has_live: bool = False
    """Whether any group had unequal rewards, since the training began."""
    num_sampled: int = 0
    """Groups that were generated since the training began."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._replayed: Replay | None = None
        self._carried: list[RolloutGroup] = []
        self._is_dead: np.ndarray = np.zeros(0, dtype=bool)  # groups of all processes, last sampled
        self._counts: dict[str, float] = defaultdict(float)  # since the last log
        self._rewards: list[np.ndarray] = []  # by completion and function, since the last log
        super().__init__(*args, **kwargs)

    # Prompts

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(dataset)
        if self.history is None:
            return sampler
        # The data loader reads ahead, but the next prompts depend on this batch's rewards. So the
        # loader only counts steps, over the first row, and `_rows` reads the prompts.
        return [0] * len(sampler)

    def _rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """G rows for each of these prompts; the rows of a group share its images."""
        table = self.train_dataset[list(indices)]
        rows = [
            dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)
        ]
        return [dict(row) for row in rows for _ in range(self.num_generations)]

    def _share(self, items: Sequence[Any]) -> list[Any]:
        """This process's part of items that are the same in all processes."""
        size = len(items) // self.accelerator.num_processes
        first = size * self.accelerator.process_index
        return list(items[first : first + size])

    # TRL's two steps: generate and grade

    def _generate(self, prompts: list[Any]) -> Any:
        return super()._generate(prompts) if self._replayed is None else self._replayed.generated()

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, ids: list[list[int]]
    ) -> Tensor:
        if self._replayed is not None:
            return self._replayed.rewards
        rewards = super()._calculate_rewards(inputs, prompts, completions, ids)
        if self.model.training:
            num_tokens = torch.tensor(sum(map(len, ids)), device=rewards.device)
            self._counts["tokens"] += int(self.accelerator.gather(num_tokens).sum())
            self._rewards.append(rewards.double().cpu().numpy())
            groups = rewards.view(-1, self.num_generations, rewards.size(-1)).cpu().numpy()
            each_reward = self.multi_objective_aggregation == "normalize_then_sum"
            weights = self.reward_weights.cpu().numpy()
            self._is_dead = zero_variance(groups, weights, each_reward)
            self.num_sampled += len(groups)
            self._counts["sampled"] += len(groups)
            self._counts["dead_sampled"] += int(self._is_dead.sum())
            self.has_live |= not bool(self._is_dead.all())
        return rewards

    def _ask(self, indices: Sequence[int]) -> list[RolloutGroup]:
        """One round: the groups of these prompts, generated and graded by all processes."""
        mine = self._share(indices)
        rows = self._rows(mine)
        prompts = [row["prompt"] for row in rows]
        if any(row.get("images") for row in rows):
            prompts = [
                prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows
            ]
        prompt_ids, completion_ids, _, completions, logps, *_ = self._generate(prompts)
        rewards = self._calculate_rewards(rows, prompts, completions, completion_ids)
        self._pending_extra_logs.clear()  # TRL would log them beside the rows of another batch
        size = self.num_generations
        parts = [slice(first, first + size) for first in range(0, len(rows), size)]
        groups = gather_object(
            [
                RolloutGroup(
                    index=index,
                    step=self.state.global_step,
                    prompt_ids=list(prompt_ids[part.start]),
                    completion_ids=[list(ids) for ids in completion_ids[part]],
                    completions=completions[part],
                    sampling_logps=None if logps is None else [list(row) for row in logps[part]],
                    rewards=[],
                )
                for index, part in zip(mine, parts, strict=True)
            ]
        )
        by_group = rewards.view(len(groups), size, -1).tolist()
        for group, values, is_dead in zip(groups, by_group, self._is_dead, strict=True):
            group.rewards, group.is_dead = values, bool(is_dead)
        return groups

    def _replay(self, groups: Sequence[RolloutGroup]) -> tuple[dict[str, Any], Replay]:
        """TRL's batch of these groups, of which each process gets its share."""
        mine = self._share(groups)
        rewards = torch.tensor([row for group in groups for row in group.rewards])
        self._replayed = Replay(mine, rewards.to(self.accelerator.device))
        try:
            rows = self._rows([group.index for group in mine])
            return super()._generate_and_score_completions(rows), self._replayed
        finally:
            self._replayed = None

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        results = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if self._replayed is not None and not self._is_reference(model):
            self._replayed.put_generation_logps(results[0])
        return results

    # The batch

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        if self.history is None:
            output = super()._generate_and_score_completions(inputs)
            is_dead = self._is_dead
        else:
            with self._phase("image_processing"):  # and whatever has no phase of its own
                num_groups = len(inputs) * self.accelerator.num_processes // self.num_generations
                groups = self._choose_groups(self.history, num_groups)
                is_off_policy = any(group.logps is not None for group in groups)
                iterations = self._off_policy_iterations if is_off_policy else self.num_iterations
                with self._replaced(num_iterations=iterations):
                    output, _ = self._replay(groups)
                self._add_logps(self._carried)
            is_dead = np.array([group.is_dead for group in groups])
        drops = self.grpo.zero_variance is ZeroVariance.drop
        # Without any gradient but the KL term's, Adam would amplify rounding errors.
        drops |= self.history is not None and bool(is_dead.all())
        self._counts["trained"] += int((~is_dead).sum()) if drops else len(is_dead)
        self._counts["dead_trained"] += 0 if drops else int(is_dead.sum())
        return self._without(output, is_dead) if drops else output

    def _choose_groups(self, history: PromptHistory, num_groups: int) -> list[RolloutGroup]:
        """The groups of the next batch, after as many rounds as they take; sets those to carry."""
        step, grpo, processes = self.state.global_step, self.grpo, self.accelerator.num_processes
        carried = [group for group in self._carried if step - group.step <= grpo.max_carry_steps]
        sampled: list[RolloutGroup] = []
        log: list[dict[str, Any]] = []
        sizes: list[int] = []  # of the rounds
        taken = {group.index for group in carried}
        max_rounds = 1 + grpo.max_rounds if grpo.dynamic_sampling else 1
        while len(sizes) < max_rounds:
            num_live = sum(not group.is_dead for group in sampled)
            missing = num_groups - len(carried) - num_live
            if missing <= 0:
                break
            # As many as give the missing groups at this batch's share of live ones.
            count = min(num_groups, -(-missing * (len(sampled) + 1) // (num_live + 1)))
            count = -(-count // processes) * processes
            groups = self._ask(history.next(count, taken, step / max(1, self.state.max_steps)))
            for group in groups:
                accuracy = [rewards[self._accuracy_column] for rewards in group.rewards]
                row = history.record(group.index, accuracy, group.is_dead)
                log.append({"step": step + 1, "round": len(sizes), **row})
            sampled += groups
            sizes.append(count)
        self._merge_rounds(sizes)
        if self.log_folder is not None and self.accelerator.is_main_process:
            callbacks.append_rows(self.log_folder / callbacks.PROMPT_LOG, log)
        if not self.has_live and history.all_sampled:
            raise DeadPoolError(self._dead_pool_text())
        live = [*carried, *(group for group in sampled if not group.is_dead)]
        batch = [*live, *(group for group in sampled if group.is_dead)][:num_groups]
        self._counts["carried"] += min(len(carried), num_groups)
        self._counts["rounds"] += len(sizes)
        steps_of_batch = self.args.steps_per_generation * self.num_iterations
        steps_of_batch //= self.args.gradient_accumulation_steps
        can_carry = grpo.dynamic_sampling and max(1, steps_of_batch) <= grpo.max_carry_steps
        self._carried = live[num_groups:] if can_carry else []
        return batch

    @property
    def _accuracy_column(self) -> int:
        return self.reward_func_names.index("accuracy")

    def _merge_rounds(self, sizes: Sequence[int]) -> None:
        """Let TRL log the rounds as one: means over all completions, and the sums of our sums."""
        for name, values in self._metrics["train"].items():
            if name.startswith("completions/") and sizes:
                values[-len(sizes) :] = [float(np.average(values[-len(sizes) :], weights=sizes))]
        for name, values in self._pending_metrics.items():
            self._pending_metrics[name] = [sum(values)]

    @contextmanager
    def _replaced(self, **attributes: Any) -> Iterator[None]:
        """Other values of some attributes, within the block."""
        before = {name: getattr(self, name) for name in attributes}
        for name, value in attributes.items():
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    @property
    def _off_policy_iterations(self) -> int:
        """A `num_iterations` with which TRL computes the policy's log-probabilities beforehand."""
        return max(self.num_iterations, self.args.gradient_accumulation_steps + 1)

    def _add_logps(self, groups: Sequence[RolloutGroup]) -> None:
        """Set the groups' `logps` by the present policy, which has generated them."""
        if not groups:
            return
        processes = self.accelerator.num_processes
        missing = -len(groups) % processes  # all processes do the same number of passes
        rows: Any = {"images": deque(), "prompt": deque(), "completion": deque(),
                     "advantages": deque(), "rewards": defaultdict(deque),
                     "extra": defaultdict(deque)}  # fmt: skip
        with self._replaced(
            num_iterations=self._off_policy_iterations,
            beta=0.0,  # no pass of the reference model
            _metrics={"train": defaultdict(list)},
            _logs=rows,
        ):
            _, replay = self._replay([*groups, *[groups[0]] * missing])
        assert replay.policy_logps is not None
        lengths = [len(ids) for group in replay.groups for ids in group.completion_ids]
        logps = [
            row[:length] for row, length in zip(replay.policy_logps.tolist(), lengths, strict=True)
        ]
        size = self.num_generations
        by_group = [logps[first : first + size] for first in range(0, len(logps), size)]
        for group, values in zip(groups, gather_object(by_group), strict=False):
            group.logps = values

    def _dead_pool_text(self) -> str:
        text = f"none of the {self.num_sampled:,} groups of this training had unequal rewards"
        if self.history is not None:
            last_N = self.history.last_pass_rate_N
            num_sampled = int(np.isfinite(last_N).sum())
            always, never = int((last_N == 1).sum()), int((last_N == 0).sum())
            text = (
                f"no group had unequal rewards, so nothing can be trained: of {len(last_N):,} "
                f"samples {num_sampled:,} were sampled, {never:,} were always wrong and "
                f"{always:,} always right"
            )
        return (
            f"{text}. Select other strata (select.strata), raise grpo.num_generations or "
            "grpo.temperature, or train by SFT first (train_stages=sft_then_grpo)"
        )

    def require_live_group(self) -> None:
        """Raise DeadPoolError if no group was live in a training that leaves such batches out."""
        if self._is_online and not self.has_live:
            raise DeadPoolError(self._dead_pool_text())

    # The loss without zero-variance groups

    def _without(self, output: dict[str, Any], is_dead: np.ndarray) -> dict[str, Any]:
        """The batch with the completions of these groups masked, and without them in TRL's counts.

        The rows stay, because all processes must have equally many.
        """
        is_row_dead = np.repeat(is_dead, self.num_generations)
        is_dropped = torch.tensor(
            self._share(is_row_dead.tolist()), device=output["advantages"].device
        )
        mask = output["completion_mask"].masked_fill(is_dropped[:, None], 0)
        num_tokens = (mask * output.get("tool_mask", 1)).sum()
        return output | {
            "completion_mask": mask,
            "is_dropped": is_dropped,
            "num_items_in_batch": self.accelerator.gather(num_tokens).sum(),
        }

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        batches = self._buffered_inputs
        if self.model.training and batches is not before and "is_dropped" in batches[0]:
            self._set_loss_scales(batches)
        return inputs

    def _set_loss_scales(self, batches: Sequence[dict[str, Any]]) -> None:
        """Make up for the dropped rows in the denominator of TRL's loss.

        The loss of an optimizer step is a mean over all rows of its passes (grpo and others), or
        over its passes (bnpo): both shall be means over what is not dropped.
        """
        if self.loss_type not in (*ROW_MEANS, "bnpo"):
            return  # num_items_in_batch counts the tokens that are not dropped
        kept = torch.stack([(~batch["is_dropped"]).sum() for batch in batches])
        if self.loss_type == "bnpo":
            kept = (kept > 0).long()
        totals = torch.full_like(kept, len(batches[0]["is_dropped"]))
        if self.loss_type == "bnpo":
            totals = torch.ones_like(kept)
        processes, size = self.accelerator.num_processes, len(batches)
        kept = self.accelerator.gather(kept).view(processes, size).sum(0)
        window = min(self.args.gradient_accumulation_steps, size)  # passes of an optimizer step
        for first in range(0, size, window):
            part = slice(first, first + window)
            num_kept = kept[part].sum()
            # Without any kept row the scale is 0, for a router's auxiliary loss too.
            scale = processes * totals[part].sum() / num_kept.clamp(min=1) * (num_kept > 0)
            for batch in batches[part]:
                batch["loss_scale"] = scale

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        return loss * inputs["loss_scale"] if "loss_scale" in inputs else loss

    # Log and checkpoint

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log, with the numbers of groups that were sampled and trained on."""
        if self.model.training and self._step_end is not None and self._counts:
            counts, metrics = self._counts, self._metrics["train"]
            metrics |= {key: [value] for key, value in self.unlogged_counts().items()}
            metrics["zero_variance_asked"] = [counts["dead_sampled"] / max(1, counts["sampled"])]
            metrics["zero_variance_trained"] = [counts["dead_trained"] / max(1, counts["trained"])]
            if self._is_online:
                metrics["groups_trained"] = [counts["trained"]]
                metrics["groups_carried"] = [counts["carried"]]
                metrics["sampling_rounds"] = [counts["rounds"]]
            if self.history is not None:
                metrics |= self._sampled_rewards()
            counts.clear()
            self._rewards.clear()
        super().log(logs, start_time)

    def unlogged_counts(self) -> dict[str, float]:
        """The groups and tokens generated since the last log."""
        return {GROUPS: self._counts["sampled"], TOKENS: self._counts["tokens"]}

    def _sampled_rewards(self) -> dict[str, list[float]]:
        """TRL's means of the rewards, over all groups generated since the last log: those of the
        batch would rise by the choice of its groups alone."""
        rewards_CF = np.concatenate(self._rewards)
        is_graded_C = ~np.isnan(rewards_CF).all(1)
        weights = self.reward_weights.cpu().numpy()
        means = {"reward": np.nansum(rewards_CF * weights, 1)[is_graded_C]}
        for name, column in zip(self.reward_func_names, rewards_CF.T, strict=True):
            means[f"rewards/{name}/mean"] = column[~np.isnan(column)]
        return {key: [float(values.mean())] for key, values in means.items() if len(values)}

    @property
    def _is_online(self) -> bool:
        return self.history is not None or self.grpo.zero_variance is ZeroVariance.drop

    def start_history(self, history: PromptHistory, folder: Path) -> None:
        """Let a history choose the prompts, and log them to the folder.

        Its first counts are those that the log begins with, if the training was begun before, since
        other runs may have added responses to the probe.
        """
        self.history, self.log_folder = history, folder
        counts: list[Any] = [None]
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            rows = [r for r in callbacks.read_log(folder, callbacks.PROMPT_LOG) if not r["step"]]
            if len(rows) != len(history.tasks):
                rows = [{"step": 0, **row} for row in history.rows()]
                (folder / callbacks.PROMPT_LOG).write_text("")
                callbacks.append_rows(folder / callbacks.PROMPT_LOG, rows)
            counts = [[(row["correct"], row["incorrect"]) for row in rows]]
        broadcast_object_list(counts)
        correct_N, incorrect_N = zip(*counts[0], strict=True)
        history.correct_N, history.incorrect_N = np.array(correct_N), np.array(incorrect_N)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self._is_online and self.args.should_save:
            # Before TRL's files, because a checkpoint with trainer_state.json counts as complete.
            folder = Path(self._get_output_dir(trial=trial))
            folder /= f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            state = {
                "has_live": self.has_live,
                "num_sampled": self.num_sampled,
                "carried": [asdict(group) for group in self._carried],
                "history": self.history and self.history.state(),
            }
            manifest.write_text(folder / STATE, json.dumps(state))  # NaN: not sampled yet
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._is_online and checkpoint is not None:
            state = json.loads((Path(checkpoint) / STATE).read_text())
            self.has_live, self.num_sampled = state["has_live"], state["num_sampled"]
            self._carried = [RolloutGroup(**group) for group in state["carried"]]
            if self.history is not None:
                self.history.load_state(state["history"])

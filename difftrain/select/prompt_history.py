"""Which prompts GRPO asks next: a memory of how often the policy has solved each of them.

Per sample a Beta posterior of the pass rate, with a uniform prior: it starts from the probe's
responses to the full image, and every group of rollouts updates it, with decay, because the policy
moves. numpy only; all randomness comes from derived seeds, so a resumed run asks the same prompts.

Axes: N samples of the pool, G completions of a group, F reward functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from difftrain import seeds
from difftrain.config.train import GrpoConfig, PromptSampler

EPS = 1e-6  # rewards closer than this are equal: float32 sums of the same terms may differ by less
RETEST_DEAD = 0.5
"""GRESO's p_e: after z zero-variance groups in a row a prompt is sampled with probability p_e^z."""
NUM_BINS = 10  # of pass rates, for mirrored_j


def zero_variance(
    rewards_NGF: np.ndarray, weights_F: np.ndarray, each_reward: bool = False
) -> np.ndarray:
    """Which of N groups give no gradient: all their rewards are equal (bool N).

    What counts is what the advantage is computed from: the weighted sum of a completion's rewards,
    or with `each_reward` each of them (TRL's normalize_then_sum). NaN is a reward that a function
    did not give; a completion without any reward is left out.
    """
    weighted = rewards_NGF * weights_F
    if not each_reward:
        weighted = np.where(np.isnan(rewards_NGF).all(-1), np.nan, np.nansum(weighted, axis=-1))[
            ..., None
        ]
    highest = np.where(np.isnan(weighted), -np.inf, weighted).max(1)
    lowest = np.where(np.isnan(weighted), np.inf, weighted).min(1)
    return (highest - lowest < EPS).all(-1)  # -inf < EPS if a group has no reward at all


def learnability(pass_rate_N: np.ndarray) -> np.ndarray:
    """p (1 - p): the variance of a completion's correctness, 0 where all of them agree."""
    return pass_rate_N * (1 - pass_rate_N)


def ask_probability(dead_in_a_row_N: np.ndarray, at_least: float) -> np.ndarray:
    """Probability that a prompt is sampled at its turn (GRESO, arXiv 2506.02177), with a floor."""
    return np.maximum(RETEST_DEAD**dead_in_a_row_N, at_least)


def mirrored_j_weights(pass_rate_N: np.ndarray) -> np.ndarray:
    """Weights with which the drawn prompts' pass rates have the density 3 (1 - p)^2.

    POLARIS recommends training data with a bias to hard prompts, whose histogram over the pass rate
    looks like a mirrored J; it gives no formula, so this one is ours. The weight of a sample is the
    density at its tenth of the pass rates, divided by the number of samples in that tenth.
    """
    bins_N = np.minimum((pass_rate_N * NUM_BINS).astype(int), NUM_BINS - 1)
    density = (1 - (np.arange(NUM_BINS) + 0.5) / NUM_BINS) ** 2
    return density[bins_N] / np.bincount(bins_N, minlength=NUM_BINS)[bins_N]


def floor_problem(grpo: GrpoConfig, tasks: Sequence[str]) -> str | None:
    """Why the floor per task cannot be met with samples of these tasks, as an error; else None."""
    if grpo.sampler is PromptSampler.uniform or not grpo.task_floor:
        return None
    counts = {task: tasks.count(task) for task in sorted(set(tasks))}
    key = f"grpo.task_floor={grpo.task_floor}"
    if grpo.task_floor * len(counts) > 1 + EPS:
        total, most = grpo.task_floor * len(counts), np.floor(1e4 / len(counts)) / 1e4
        return (
            f"{key}: {len(counts)} tasks would need {total:.0%} of the prompts; "
            f"set it to at most {most:g}"
        )
    smallest = min(counts, key=lambda task: counts[task])
    prompts = grpo.prompts_per_step * (1 + grpo.max_rounds * grpo.dynamic_sampling)
    per_step = grpo.task_floor * prompts
    if per_step > counts[smallest] + EPS:  # no prompt comes twice in a step
        most = np.floor(1e4 * counts[smallest] / prompts) / 1e4
        return (
            f"{key}: task {smallest} would need {per_step:.1f} of the {prompts} prompts that a "
            f"step may ask, but has {counts[smallest]} samples; set it to at most {most:g}"
        )
    return None


@dataclass(slots=True)
class PromptHistory:
    """The samples' posteriors, and the sampler that asks by them.

    `order_of_pass(i)` is the order of the N samples in the i-th pass of uniform. `correct_N` and
    `incorrect_N` are the numbers of answers; they decay and may be partial credits.
    """

    grpo: GrpoConfig
    seed: int
    sample_ids: Sequence[str]
    tasks: Sequence[str]
    order_of_pass: Callable[[int], Sequence[int]]
    correct_N: np.ndarray
    incorrect_N: np.ndarray
    ease_N: np.ndarray | None = None
    """For curriculum, PISM's failure ratio; inf: it never fails, NaN: not known."""
    dead_in_a_row_N: np.ndarray = field(init=False)
    last_pass_rate_N: np.ndarray = field(init=False)
    """Mean accuracy of the latest group; NaN before the first."""
    turn_N: np.ndarray = field(init=False)
    """When a prompt was last sampled or skipped, on a clock of such turns; 0: never."""
    clock: int = 0
    num_calls: int = 0
    num_uniform: int = 0
    postponed: list[int] = field(default_factory=list)
    """For uniform: samples whose turn came while the batch had them."""
    count_by_task: dict[str, int] = field(init=False)
    rank_N: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.tasks)
        self.dead_in_a_row_N = np.zeros(size, dtype=int)
        self.last_pass_rate_N = np.full(size, np.nan)
        self.turn_N = np.zeros(size, dtype=int)
        self.count_by_task = dict.fromkeys(sorted(set(self.tasks)), 0)
        self.rank_N = np.argsort(np.asarray(self.order_of_pass(0)), kind="stable")

    @property
    def pass_rate_N(self) -> np.ndarray:
        """Posterior means of the pass rates."""
        return (1 + self.correct_N) / (2 + self.evidence_N)

    @property
    def evidence_N(self) -> np.ndarray:
        """How many answers, decayed, each posterior rests on."""
        return self.correct_N + self.incorrect_N

    @property
    def all_sampled(self) -> bool:
        """Whether each sample got a group."""
        return not bool(np.isnan(self.last_pass_rate_N).any())

    def next(self, count: int, taken: set[int], progress: float = 0.0) -> list[int]:
        """The next samples; adds them to `taken`, those that the batch has so far.

        A sample comes twice in one batch only if the pool is too small. `progress` is the share of
        the training that is done.
        """
        if self.grpo.sampler is PromptSampler.uniform:
            return [self._next_uniform(taken) for _ in range(count)]
        self.num_calls += 1
        generator = np.random.default_rng(seeds.derive(self.seed, "prompts", self.num_calls))
        scores_N, chosen = self._scores(generator, progress), []
        for _ in range(count):
            if len(taken) >= len(self.tasks):
                taken.clear()
            free_N = np.ones(len(self.tasks), dtype=bool)
            free_N[list(taken)] = False
            free_N = self._within_floor(free_N)
            if self.grpo.sampler is PromptSampler.skip_dead:
                index = self._next_alive(free_N, generator)
            elif generator.random() < self.grpo.retest_share:
                index = self._by_turn(free_N)[0]
            else:
                index = int(np.where(free_N, scores_N, -np.inf).argmax())
            self.clock += 1
            self.turn_N[index] = self.clock
            self.count_by_task[self.tasks[index]] += 1
            taken.add(index)
            chosen.append(index)
        return chosen

    def rows(self) -> list[dict[str, Any]]:
        """The samples' answers, for the log."""
        return [self._row(index) for index in range(len(self.tasks))]

    def _row(self, index: int) -> dict[str, Any]:
        return {
            "sample_id": self.sample_ids[index],
            "task": self.tasks[index],
            "correct": float(self.correct_N[index]),
            "incorrect": float(self.incorrect_N[index]),
        }

    def record(self, index: int, accuracy_G: Sequence[float], is_dead: bool) -> dict[str, Any]:
        """Add the group that a sample has got: the accuracy rewards of its completions.

        Returns a row for the log: the answers with this group; the expected pass rate without it.
        """
        expected = float(self.pass_rate_N[index])
        accuracy = np.clip(np.nan_to_num(np.asarray(accuracy_G, dtype=float)), 0, 1)
        decay, correct = self.grpo.history_decay, float(accuracy.sum())
        self.correct_N[index] = decay * self.correct_N[index] + correct
        self.incorrect_N[index] = decay * self.incorrect_N[index] + len(accuracy) - correct
        self.dead_in_a_row_N[index] = self.dead_in_a_row_N[index] + 1 if is_dead else 0
        accuracy_mean = correct / len(accuracy)
        self.last_pass_rate_N[index] = accuracy_mean
        row = {"expected": expected, "accuracy": accuracy_mean, "zero_variance": is_dead}
        return self._row(index) | row

    def state(self) -> dict[str, Any]:
        """What changes during training, ready for JSON."""
        names = ("clock", "num_calls", "num_uniform", "count_by_task", "postponed")
        state: dict[str, Any] = {name: getattr(self, name) for name in names}
        arrays = ("correct_N", "incorrect_N", "dead_in_a_row_N", "last_pass_rate_N", "turn_N")
        return state | {name: getattr(self, name).tolist() for name in arrays}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name, value in state.items():
            is_array = isinstance(getattr(self, name), np.ndarray)
            setattr(self, name, np.asarray(value) if is_array else value)

    def _next_uniform(self, taken: set[int]) -> int:
        """The next sample in the order of the passes; adds it to `taken`.

        Where a pass begins within a batch, a sample that the batch has comes with the next batch.
        """
        if len(taken) >= len(self.tasks):
            taken.clear()
        free = [index for index in self.postponed if index not in taken]
        if free:
            index = free[0]
            self.postponed.remove(index)
        else:
            index = self._next_in_order()
            while index in taken:
                self.postponed.append(index)
                index = self._next_in_order()
        taken.add(index)
        return index

    def _next_in_order(self) -> int:
        number, position = divmod(self.num_uniform, len(self.tasks))
        self.num_uniform += 1
        return int(self.order_of_pass(number)[position])

    def _scores(self, generator: np.random.Generator, progress: float) -> np.ndarray:
        size = len(self.tasks)
        if self.grpo.sampler is PromptSampler.learnable:
            return learnability(generator.beta(1 + self.correct_N, 1 + self.incorrect_N))
        if self.grpo.sampler is PromptSampler.mirrored_j:  # the largest are a weighted sample
            return np.log(mirrored_j_weights(self.pass_rate_N)) + generator.gumbel(size=size)
        if self.grpo.sampler is PromptSampler.curriculum:
            assert self.ease_N is not None
            ease = np.where(np.isnan(self.ease_N), np.nanmedian(self.ease_N), self.ease_N)
            position_N = np.argsort(np.lexsort((self.rank_N, -ease)))  # 0: the easiest
            return -np.abs((position_N + 0.5) / size - progress)
        return np.zeros(size)

    def _within_floor(self, free_N: np.ndarray) -> np.ndarray:
        """The free samples of the task that lacks most prompts; all, if none lacks a whole one."""
        total = sum(self.count_by_task.values()) + 1
        missing = {
            task: self.grpo.task_floor * total - sampled
            for task, sampled in self.count_by_task.items()
        }
        for task in sorted(missing, key=lambda task: -missing[task]):
            of_task_N = free_N & (np.asarray(self.tasks) == task)
            if missing[task] >= 1 and of_task_N.any():
                return of_task_N
        return free_N

    def _by_turn(self, free_N: np.ndarray) -> list[int]:
        """The free samples, those first whose last turn is the earliest."""
        order = np.lexsort((self.rank_N, self.turn_N))
        return order[free_N[order]].tolist()

    def _next_alive(self, free_N: np.ndarray, generator: np.random.Generator) -> int:
        """The next sample in turn that is not skipped; the first one if all are skipped."""
        probability_N = ask_probability(self.dead_in_a_row_N, self.grpo.retest_share)
        in_turn = self._by_turn(free_N)
        for index in in_turn:
            if generator.random() < probability_N[index]:
                return index
            self.clock += 1
            self.turn_N[index] = self.clock
        return in_turn[0]

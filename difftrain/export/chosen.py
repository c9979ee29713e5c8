"""A sample with everything that was found out about it, and how other trainers are told of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from difftrain.data import prompts
from difftrain.records import AnswerKind, Measure, Sample, Score, Selection, Stratum

BOXED = (AnswerKind.number, AnswerKind.choice, AnswerKind.count)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A sample, its scores by measure, its stratum under the run's own measure, its pick if any."""

    sample: Sample
    scores: Mapping[Measure, Score]
    stratum: Stratum | None
    pick: Selection | None

    @property
    def words(self) -> str:
        """The user's words, options included, without placeholders."""
        return prompts.user_text(self.sample.question, self.sample.options)

    @property
    def marked(self) -> str:
        """The user's words behind one <image> for each picture."""
        return "<image>" * len(self.sample.images) + self.words

    @property
    def solution(self) -> str:
        r"""The gold as rewards of other trainers read it: \boxed{} or <answer></answer>."""
        answer = self.sample.answer
        if self.sample.answer_kind in BOXED:
            return f"\\boxed{{{answer}}}"
        return f"<answer>{answer}</answer>"

    @property
    def response(self) -> str:
        """What an assistant should say: the solution's steps where they are known, the answer."""
        steps = f"<think>{self.sample.rationale}</think>" if self.sample.rationale else ""
        return f"{steps}<answer>{self.sample.answer}</answer>"


def joined(
    samples: Iterable[Sample], scores: Iterable[Score], picks: Iterable[Selection], measure: Measure
) -> list[Chosen]:
    """Every sample with its scores and pick. Pictures stay on disk."""
    found: dict[str, dict[Measure, Score]] = {}
    for score in scores:
        found.setdefault(score.sample_id, {})[score.measure] = score
    picked = {pick.sample_id: pick for pick in picks}
    rows = []
    for sample in samples:
        own = found.get(sample.sample_id, {})
        stratum = own[measure].stratum if measure in own else None
        rows.append(Chosen(sample, own, stratum, picked.get(sample.sample_id)))
    return rows


def in_order(rows: Iterable[Chosen], picks: Iterable[Selection]) -> list[Chosen]:
    """The picked rows, in the order of the picks."""
    by_id = {row.sample.sample_id: row for row in rows}
    return [by_id[pick.sample_id] for pick in picks]

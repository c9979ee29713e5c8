"""Builds rollouts (graded responses) with chosen verdicts, without a model."""

from difftrain.probe.schedule import ProbeRequest
from difftrain.records import Rollout, Verdict


def rollout_of(request: ProbeRequest, correct: bool) -> Rollout:
    """A one-token rollout that answers a request, correctly or not."""
    return Rollout(
        sample_id=request.sample.sample_id,
        view=request.view,
        mask_percent=request.percent,
        draw=request.draw,
        seed=0,
        response="",
        num_tokens=1,
        token_ids=(1,),
        hit_eos=True,
        verdict=Verdict.correct if correct else Verdict.incorrect,
    )

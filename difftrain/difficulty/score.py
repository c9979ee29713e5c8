"""Turns the probe's evidence on samples into difficulty scores, by any of the measures."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from difftrain.config.difficulty import ChanceCorrection, DifficultyConfig, PismConfig, ProbeConfig
from difftrain.difficulty.definition import definition
from difftrain.difficulty.evidence import Evidence
from difftrain.records import Measure, Score


def score_sample(
    id_: str, measure: Measure, evidence: Evidence, probe: ProbeConfig, config: DifficultyConfig
) -> Score:
    """One measure's value and stratum of the sample with this id.

    Raises ValueError, which names the sample, if draws or rows of another pass are missing.
    """
    try:
        value, stratum = definition(measure).score(evidence, config, probe)
    except ValueError as error:
        raise ValueError(f"{measure} of sample {id_}: {error}") from error
    return Score(sample_id=id_, measure=measure, value=value, stratum=stratum)


def score_all(
    sample_ids: Sequence[str],
    evidence: dict[str, Evidence],
    probe: ProbeConfig,
    config: DifficultyConfig,
) -> list[Score]:
    """One Score for each requested measure and sample, in the order of the samples.

    Raises KeyError if a sample has no rollouts, and ValueError if draws are missing.
    """
    return [
        score_sample(sample_id, measure, evidence[sample_id], probe, config)
        for measure in config.measures
        for sample_id in sample_ids
    ]


def score_details(
    sample_ids: Sequence[str],
    evidence: dict[str, Evidence],
    probe: ProbeConfig,
    config: DifficultyConfig,
) -> Iterator[tuple[Measure, list[Any]]]:
    """For each measure that keeps details beside its scores: a row for each sample."""
    for measure in config.measures:
        if details := definition(measure).details:
            yield measure, [details(id_, evidence[id_], config, probe) for id_ in sample_ids]


def uncorrected_pism_scores(
    sample_ids: Sequence[str], evidence: dict[str, Evidence], probe: ProbeConfig, config: PismConfig
) -> list[Score]:
    """PISM's scores without the chance correction, for comparison; [] if the correction is off."""
    if config.chance_correction is ChanceCorrection.none:
        return []
    plain = DifficultyConfig(pism=replace(config, chance_correction=ChanceCorrection.none))
    return [score_sample(id_, Measure.pism, evidence[id_], probe, plain) for id_ in sample_ids]

"""What the wanted measures need of the probe, so that one probe feeds them all.

The whole-picture rollouts 0 .. M-1 of CDE and DRM are the very draws of PISM's ratio 0; ACE and
CMAB look at one of them. Only what is missing is asked.
"""

from dataclasses import dataclass

from difftrain.config.difficulty import ChanceCorrection, PismConfig
from difftrain.config.probe import Grid
from difftrain.config.run_config import RunConfig
from difftrain.records import Measure


@dataclass(frozen=True, slots=True)
class Needs:
    """Draws that the labels need: of the mask ladder, of the whole picture, of the words alone."""

    pism: PismConfig | None
    """Climb the ladder until this measure's label is settled."""
    full: bool
    """Fill the whole ratio-by-draw table."""
    first_right: bool
    """Ask the whole picture until one of the K draws is right (CMAB)."""
    whole: int
    """Whole-picture rollouts asked in any case."""
    text_only: int
    """Rollouts without the picture."""

    @property
    def guessing(self) -> bool:
        """Whether PISM's label also depends on the text-only rollouts."""
        return self.pism is not None and self.pism.chance_correction is ChanceCorrection.text_only

    def words(self) -> str:
        """These needs in words; equal words, equal needs."""
        told = []
        if self.pism is not None:
            told.append(f"tau={self.pism.tau!r}")
        if self.guessing and self.pism is not None:
            told.append(f"guess=text_only alpha={self.pism.alpha!r}")
        told += ["full"] * self.full + ["first_right"] * self.first_right
        told += [f"whole={self.whole}"] * bool(self.whole)
        told += [f"text_only={self.text_only}"] * bool(self.text_only)
        return " ".join(told)

    def settled(self, samples: int) -> str:
        """What manifest.json notes once these needs of so many samples are met."""
        return f"{self.words()} samples={samples}"


def needs(config: RunConfig) -> Needs:
    """The needs of the measures that these settings want."""
    wanted, rollouts = config.difficulty.measures, config.probe.cde_rollouts
    pism = config.difficulty.pism if Measure.pism in wanted else None
    guessing = pism is not None and pism.chance_correction is ChanceCorrection.text_only
    counted = Measure.cde in wanted or Measure.drm in wanted
    return Needs(
        pism=pism,
        full=config.probe.grid is Grid.full,
        first_right=Measure.cmab in wanted,
        whole=rollouts if counted else int(Measure.ace in wanted),
        text_only=rollouts if guessing or Measure.cde in wanted else 0,
    )

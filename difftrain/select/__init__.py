"""Which samples train: by stratum, by RAP, or an equal-size random control; numpy only."""

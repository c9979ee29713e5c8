"""Which samples train: strata and equal-size random controls; numpy only."""

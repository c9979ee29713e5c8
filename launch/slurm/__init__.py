"""A sweep as a SLURM job array."""

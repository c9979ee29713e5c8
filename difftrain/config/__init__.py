"""Settings: one dataclass for each component, all in RunConfig. No module here imports torch."""

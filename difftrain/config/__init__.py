"""Settings: one dataclass for each component, joined in run_config.py; none imports torch."""

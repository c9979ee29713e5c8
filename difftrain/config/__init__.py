"""Settings: one dataclass for each component, joined in run_config.py; imports nothing heavy."""

"""Settings: one dataclass a component, joined in run.py; nothing heavy is imported."""

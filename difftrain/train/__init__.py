"""Training with TRL's trainers. Importing this package imports nothing heavy."""


class PreflightFailed(RuntimeError):
    """The model or its settings cannot be trained; the message names every failed check."""

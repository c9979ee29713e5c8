"""The embedded world: drawn images, questions with known truth, and a tiny model."""

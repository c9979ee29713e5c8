"""The embedded world: drawn pictures, questions with known truth, and a tiny model to ask."""

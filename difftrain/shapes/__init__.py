"""The embedded world: drawn images, questions with known true answers, and a tiny model."""

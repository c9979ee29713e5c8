"""The embedded world, built-in data: drawn images, questions with known answers, a tiny model."""

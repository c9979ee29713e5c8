"""The shapes world, the built-in data: drawn images, questions with known answers, a tiny model."""

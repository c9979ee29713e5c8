"""Difficulty measures as pure functions of tables; numpy only."""

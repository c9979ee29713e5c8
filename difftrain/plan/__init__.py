"""What a run would cost, from settings, counts and formulas alone. No torch."""

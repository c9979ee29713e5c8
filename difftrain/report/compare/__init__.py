"""Compare finished runs in a table like Qi et al. 2026: each row against its random control."""

"""How stages meet: folders with parquet parts and a manifest, locks, ranks; and their chain."""

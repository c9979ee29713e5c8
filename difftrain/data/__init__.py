"""Sources become Samples: decoded safely, inside one pixel budget, or quarantined with a reason."""

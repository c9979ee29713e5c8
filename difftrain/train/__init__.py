"""TRL owns the loop; these files know that it exists."""

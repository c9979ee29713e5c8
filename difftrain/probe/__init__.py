"""Ask the model: masked, whole and text-only views, and where its answers looked."""

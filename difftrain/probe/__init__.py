"""The probe: samples responses with masked, full or no images, and measures their attention."""

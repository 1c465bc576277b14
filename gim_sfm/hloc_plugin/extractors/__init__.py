"""What `hloc.extractors` gains; hloc loads these modules under its own name."""

"""What `hloc.matchers` gains; hloc loads these modules under its own name."""

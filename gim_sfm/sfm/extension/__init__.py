"""New photos join an existing model."""

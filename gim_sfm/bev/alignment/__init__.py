"""Models of unknown scale, put onto clouds."""

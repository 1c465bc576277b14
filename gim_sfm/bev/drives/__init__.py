"""Drives: scans with their trajectory, and the local maps they add up to."""

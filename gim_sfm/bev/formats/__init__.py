"""One module a family of point-cloud files."""

"""Point clouds registered through their bird's-eye views."""

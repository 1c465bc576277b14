"""Loop closures: places met again, the links between them, and the pose graph they make."""

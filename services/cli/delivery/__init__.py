"""Progressive delivery on one machine: a new release beside the old one, more and more calls to it, and back if it is worse."""

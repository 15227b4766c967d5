"""What touches weights."""

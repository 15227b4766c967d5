"""The long fault run."""

"""What the API and its queries bear."""

"""What a request touches. Never imports torch or worker."""

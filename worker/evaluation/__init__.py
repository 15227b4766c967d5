"""What models can do, measured: items by item, on tasks of lm-eval and of the caller's own."""

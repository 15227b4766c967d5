"""A study of small experts as one request: `python -m benchmarks.study`."""

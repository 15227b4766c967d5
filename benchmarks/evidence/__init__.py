"""The evidence: small pairs that really forget, and what repairs them; `python -m benchmarks.evidence`."""

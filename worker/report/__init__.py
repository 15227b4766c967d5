"""report.json, the manifest, the model card and the figures of one merge."""

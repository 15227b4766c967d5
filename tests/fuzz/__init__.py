"""Fuzzing of what strangers write: safetensors headers and indexes, recipes, mergekit's YAML. Seeded, no network."""

"""Checkpoints on disk: lazy reading, streaming sharded writing, digests."""

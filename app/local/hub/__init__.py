"""A local Hub: speaks the wire protocol of huggingface_hub 2.x, keeps everything in one directory."""

from app.local.hub.store import HubStore

__all__ = ["HubStore"]

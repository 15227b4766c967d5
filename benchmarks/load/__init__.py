"""What the API and its queries bear."""

import os

# the local Hub has no Xet storage, and the Hub's client asks for this once, when it is first imported
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

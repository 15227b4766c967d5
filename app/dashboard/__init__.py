"""The read-only pages, and the charts on them."""

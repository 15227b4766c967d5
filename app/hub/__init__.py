"""All that is said to the Hub, for both sides."""

"""The stages of the computing child, from typed input to typed output."""

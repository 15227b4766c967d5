"""`make demo`: a real language model that forgets, restored through the running service, and measured."""

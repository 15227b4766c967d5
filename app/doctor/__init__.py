"""Looking at a machine of the service: what is wrong, and what to do about it. Changes nothing."""

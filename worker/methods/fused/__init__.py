"""The CPU's own loops for task vectors, compiled where numba is installed; elsewhere torch's operations do the same."""

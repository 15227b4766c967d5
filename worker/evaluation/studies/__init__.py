"""Studies (arXiv 2511.02451): what merges of a base and its experts win and lose, in one table. Pure."""

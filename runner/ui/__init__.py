"""`labs ui`: the roadmap, the labs and their runs as pages on this machine, for one person and one browser."""

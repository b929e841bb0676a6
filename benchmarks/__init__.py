"""Each benchmark runs its subject and a peer in turn, in one process, and prints medians and their ratio."""

"""A self-contained page about a model: how it learnt, what it finds, where it fails."""

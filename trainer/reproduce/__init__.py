"""python -m trainer reproduce: the paper's tables and figures, run by run."""

"""Figures of this machine: ours beside what an operator would have without us, in one run."""

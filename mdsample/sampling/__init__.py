"""The loop: what a step sees, what it does, and what a run gives."""

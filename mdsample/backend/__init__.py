"""What every backend needs, and the reference backend on NumPy."""

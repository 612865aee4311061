"""The reference backend: NumPy, float32, short; what every other backend is tested against."""

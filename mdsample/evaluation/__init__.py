"""Accuracy against forward passes: benches, calibration, intervals."""

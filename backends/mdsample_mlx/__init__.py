"""The MLX backend: trunks on Apple GPUs and on CPUs, quantised or not."""

"""The Torch backend: trunks on CPU, CUDA and Apple GPUs, in float32, bfloat16 or float16."""

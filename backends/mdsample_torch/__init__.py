"""The Torch backend: trunks on CPU, CUDA and Apple GPUs, in float32, bfloat16 or float16, and modules of your own."""

from mdsample_torch.module import from_module

__all__ = ["from_module"]

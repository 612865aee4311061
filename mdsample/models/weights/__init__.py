"""What a model's weights are: tensors by their headers, where each of ours lies, adapters and packed matrices."""

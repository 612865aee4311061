"""What a model is: where it is found, what its files say, which family it belongs to."""

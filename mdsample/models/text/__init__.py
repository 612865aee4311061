"""How a model writes text: its tokenizer, the bytes of its tokens, its chat template."""

"""How the embedded model `tiny-gsm` is made: problems, tokenizer, training, evaluation."""

"""Log-probabilities of texts: of candidates, of a reasoning, along the way."""

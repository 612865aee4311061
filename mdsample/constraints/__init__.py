"""Languages: expressions and lists of texts, compiled into automata over the tokens of one tokenizer."""

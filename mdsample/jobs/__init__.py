"""Many requests: records in and out, posterior traces, examples to train on."""

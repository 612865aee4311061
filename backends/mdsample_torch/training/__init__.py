"""Training on finished texts: settings, the objective, the folder of a job, and transformers' `Trainer` around them."""

"""lm-eval: its tasks on our models, and our models under its command line."""

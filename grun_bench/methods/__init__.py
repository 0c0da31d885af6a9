"""How a model is changed: adapters, objectives, the trainer, baselines, fine-tuning, saving."""

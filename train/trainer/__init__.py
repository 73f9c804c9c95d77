"""The training loop, its settings, stages, checkpoints, validation and logs."""

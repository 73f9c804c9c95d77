"""The evaluation on the synthetic world, whose truth is known."""

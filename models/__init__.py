"""What the network is: encoders, aligners, similarity, checkpoints."""

"""What is seen and heard is kept in files: films, animations, data for other tools."""

"""What can be seen of a run: its lines, its figures, its pictures."""

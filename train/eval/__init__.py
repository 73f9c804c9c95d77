"""The papers' evaluations: items, heatmaps, tasks, report."""

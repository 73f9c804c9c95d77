"""Files with pictures and sound are read here, for live runs, training and evaluation alike.

Nothing else of ours is imported, so that training may read by it without the rest of a live run.
"""

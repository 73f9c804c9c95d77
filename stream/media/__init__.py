"""Files with pictures and sound are read here, for live runs, training and evaluation alike.

But for names of files nothing of ours is imported, so that training may read by it without the
rest of a live run.
"""

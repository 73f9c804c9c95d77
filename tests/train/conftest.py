"""Processes that tests of training start find everything imported: they are forked."""

import multiprocessing

# As the command does, whose own module is imported where its workers are forked.
multiprocessing.set_forkserver_preload(["denseav.train.trainer.loop"])

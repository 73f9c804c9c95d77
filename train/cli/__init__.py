"""The command lines `denseav-train`, `denseav-data` and `denseav-eval`."""

"""The command lines `denseav-live` and `denseav-feed`."""

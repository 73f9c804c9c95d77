"""The ZeroMQ feed: messages, publisher, client, keys, recordings."""

"""Files become shards, shards become examples, examples become batches."""

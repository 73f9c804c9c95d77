"""Many processes: devices, collectives, FSDP, files that the first one writes."""

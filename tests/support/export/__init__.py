"""What tests of exporting share: tiny bundles, graphs converted once, a GPU that is not there."""

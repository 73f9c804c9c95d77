"""What tests of training share: tiny learners and runs, made clips, public sets in small."""

"""What tests share: made data, real servers, fakes at the seams."""

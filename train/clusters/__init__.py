"""Clips in clusters by their audio alone: nobody says what is in them."""

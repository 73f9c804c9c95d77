"""What tests of pictures share: a desktop, a browser, the pages it shows."""

"""For all tests: this folder is on the import path, so that they share `support`."""

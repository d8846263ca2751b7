"""What tests of several folders share: real servers, and a man in the middle for their connections."""

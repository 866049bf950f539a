"""What decides what runs where, and the one loop that drives it."""

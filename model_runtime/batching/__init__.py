"""What one forward computes, decided without torch."""

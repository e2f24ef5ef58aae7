"""What a finished model is judged by."""

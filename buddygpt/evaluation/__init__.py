"""What a finished model is judged by. Nothing here trains."""

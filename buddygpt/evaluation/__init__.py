"""What a trained model does: facts it answers, sides it prefers, how healthy its replies are. It never trains."""

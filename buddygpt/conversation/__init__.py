"""Talking with a model: the turns and what is read of them, apart from how they are typed and shown."""

"""What leaves the house: the card, the files of a push, and the hubs that take them."""

"""All Python of paymesh: seven rooms, what they stand on, and the command."""

"""Many calls or many runs that make one table. Importing the room itself is free: its modules are named."""

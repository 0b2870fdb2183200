"""What there is to see, a function an object: `thing(stage, x, y, ...)`."""

"""Things in the pictures, one function per object: `thing(stage, x, y, ...)`."""

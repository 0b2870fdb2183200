"""The dissection: passes over images, and how they resume. `api` is the library."""

"""Which human concepts do the units of a vision network detect?"""

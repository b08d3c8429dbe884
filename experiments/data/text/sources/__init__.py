"""Who reads documents: one reader for each kind of files, and the door to all of them."""

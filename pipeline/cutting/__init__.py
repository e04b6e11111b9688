"""From recordings to a data set: where to cut, the clips, and their manifest."""

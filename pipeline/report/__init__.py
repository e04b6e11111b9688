"""What a person looks at: one clip on the terminal and as an overlay video, a data set as a report."""

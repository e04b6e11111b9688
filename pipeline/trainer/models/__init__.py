"""The systems, one file for each family, and the parts that several families share."""

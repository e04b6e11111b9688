"""Tables and progress bars on the terminal."""

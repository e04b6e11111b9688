"""The command line: click commands, each a thin call, and what they print."""

"""The stage `words`: when each word of a transcript is spoken."""

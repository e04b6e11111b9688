"""Clips as a trainer reads them: loading, checking, standardising, padding."""

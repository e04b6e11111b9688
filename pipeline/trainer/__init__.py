"""Sentiment models of the CH-SIMS paper, trained on a feature folder.

`settings` names the systems and holds their numbers without importing torch; everything else does.
"""

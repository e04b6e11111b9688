"""The systems of the CH-SIMS paper, trained on a feature folder.

`settings` and `systems` name the systems without importing torch; everything else imports it.
"""

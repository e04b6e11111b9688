"""How a long recording is divided into clips of one face that speaks."""

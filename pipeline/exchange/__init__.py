"""Features in the files of other programs, out (`mmsa`, `csd`) and in (`imported`)."""

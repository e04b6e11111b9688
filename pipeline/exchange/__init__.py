"""Features to and from the files of other programs: export (`mmsa`, `csd`) and import (`imported`)."""

"""The 709 vision columns by OpenFace 2.x itself: its program ``FeatureExtraction``, run on folders of images.

- `program`: finding and identifying the program, and checks that do not run it
- `processors`: how many it may run on, since it hangs on a single one
- `launched`: the program that a script starts
- `process`: one run of a program that may crash, hang or outlive its parent
- `scratch`, `images`: the folders that it reads, and their removal in any case
- `table`: its CSV
- `check`: a test run on one image
- `backend`: clips in, features out; retries and failures

`program`, `launched`, `process`, `processors` and `scratch` import no numpy.
"""

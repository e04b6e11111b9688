"""The 709 vision columns by OpenFace 2.x itself: its program ``FeatureExtraction``, run on folders of images.

- `program`: where it is, which one it is, and what can be seen to be wrong with it without running it
- `process`: one run of a program that may crash, hang or be left behind
- `scratch`, `images`: the folders that it reads, and how they go away whatever happens
- `table`: its CSV
- `check`: whether it works here, by running it on one image
- `backend`: clips in, features out; what is run again, and what is given up

`program` and `scratch` import no numpy.
"""

// Linked as a library of its own, outside the system's folders, with a run path that holds on one machine only.
#pragma once

#include <string>

// From 0 to 1, or -1 where the file is no image.
double mean_brightness(const std::string& path);

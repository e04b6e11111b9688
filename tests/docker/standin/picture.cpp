#include "picture.h"

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

double mean_brightness(const std::string& path) {
    const cv::Mat picture = cv::imread(path, cv::IMREAD_GRAYSCALE);
    return picture.empty() ? -1 : cv::mean(picture)[0] / 255;
}

#include "image.h"

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

double mean_brightness(const std::string& path) {
    const cv::Mat image = cv::imread(path, cv::IMREAD_GRAYSCALE);
    return image.empty() ? -1 : cv::mean(image)[0] / 255;
}

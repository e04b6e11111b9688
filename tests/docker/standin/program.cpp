// A program in FeatureExtraction's form: arguments, files looked up beside argv[0], ways to end, 714 columns. Its
// numbers mean nothing. It reads images with OpenCV, as the real one does, so that it has libraries to be carried along.

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <dirent.h>
#include <sys/stat.h>

#include "image.h"

using Words = std::vector<std::string>;

static bool readable(const std::string& path) { return std::ifstream(path).good(); }

// In the working directory, or else beside argv[0].
static std::string find(const std::string& name, const std::string& root) { return readable(name) ? name : root + name; }

static void add(Words& names, const std::string& before, const std::string& axes, int count) {
    for (char axis : axes)
        for (int i = 0; i < count; i++) names.push_back(before + axis + "_" + std::to_string(i));
}

static Words columns() {
    Words names{"frame", "face_id", "timestamp", "confidence", "success", "gaze_0_x", "gaze_0_y", "gaze_0_z",
                "gaze_1_x", "gaze_1_y", "gaze_1_z", "gaze_angle_x", "gaze_angle_y"};
    add(names, "eye_lmk_", "xyXYZ", 56);
    for (const char* each : {"pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz"}) names.push_back(each);
    add(names, "", "xyXYZ", 68);
    for (const char* each : {"p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty"}) names.push_back(each);
    add(names, "", "p", 34);
    const Words units{"01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45"};
    for (const auto& unit : units) names.push_back("AU" + unit + "_r");
    for (const auto& unit : units) {
        if (unit == "45") names.push_back("AU28_c");
        names.push_back("AU" + unit + "_c");
    }
    return names;
}

static Words images(const std::string& folder) {
    Words found;
    if (DIR* open = opendir(folder.c_str())) {
        while (dirent* entry = readdir(open)) {
            const std::string name = entry->d_name, end = name.substr(name.rfind('.') + 1);
            if (end == "jpg" || end == "jpeg" || end == "png" || end == "bmp") found.push_back(folder + "/" + name);
        }
        closedir(open);
    }
    std::sort(found.begin(), found.end());
    return found;
}

static void row(std::ostream& out, const Words& names, int place, double brightness) {
    out << place + 1 << ", 0, 0.000, 0.98, 1";
    for (size_t i = 5; i < names.size(); i++) {
        const bool presence = names[i].substr(names[i].size() - 2) == "_c";
        out << ", " << (presence ? double(i % 2) : brightness + 0.01 * (i % 100));
    }
    out << "\n";
}

int main(int argc, char** argv) {
    if (argc == 1) {
        std::cout << "For command line arguments see the README\n";
        return 0;
    }
    const std::string self = argv[0], root = self.substr(0, self.rfind('/') + 1);
    for (const char* needed : {"model/main_ceclm_general.txt", "model/patch_experts/cen_patches_0.25_of.dat"}) {
        const std::string place = find(needed, root);
        std::cout << "Reading the landmark detector module from: " << place << std::endl;
        if (!readable(place)) {
            std::cout << "ERROR: Could not load the landmark detector" << std::endl;
            return 1;
        }
    }
    if (!readable(find("AU_predictors/main_dynamic_svms.txt", root))) std::abort();

    Words folders;
    std::string out = "processed";
    for (int i = 1; i + 1 < argc; i++) {
        if (argv[i] == std::string("-fdir")) folders.push_back(argv[++i]);
        else if (argv[i] == std::string("-out_dir")) out = argv[++i];
    }
    mkdir(out.c_str(), 0777);
    const Words names = columns();
    for (const auto& folder : folders) {
        const Words found = images(folder);
        if (found.empty()) return 0;
        std::ofstream csv(out + "/" + folder.substr(folder.rfind('/') + 1) + ".csv");
        if (!csv) std::abort();
        for (size_t i = 0; i < names.size(); i++) csv << (i ? ", " : "") << names[i];
        csv << "\n";
        for (size_t i = 0; i < found.size(); i++) {
            const double brightness = mean_brightness(found[i]);
            if (brightness < 0 && i == 0) std::raise(SIGFPE);
            if (brightness < 0) break;
            row(csv, names, int(i), brightness);
        }
    }
    return 0;
}

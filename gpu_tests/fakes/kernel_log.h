// The file that stands for the kernel's log, named by GT_FAKE_KMSG: one for all processes of a test.
#pragma once

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace gt_fake {

/// Append a line, if it is one.
inline void log(const std::string &line) {
    const char *path = std::getenv("GT_FAKE_KMSG");
    if (!path || line.empty()) return;
    if (std::FILE *file = std::fopen(path, "a")) {
        std::fprintf(file, "%s\n", line.c_str());
        std::fclose(file);
    }
}

/// How many bytes there are, whichever process wrote them.
inline long logged() {
    const char *path = std::getenv("GT_FAKE_KMSG");
    struct stat about {};
    return path && ::stat(path, &about) == 0 ? static_cast<long>(about.st_size) : 0;
}

}  // namespace gt_fake

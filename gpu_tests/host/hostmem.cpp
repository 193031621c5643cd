#include "hostmem.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace gt {
namespace {

constexpr std::uint64_t kUnlimited = UINT64_MAX;

/// The first number of a file; without one ("max", no file), the largest.
std::uint64_t number_in(const std::string &path) {
    std::ifstream file(path);
    std::uint64_t number = 0;
    return file >> number ? number : kUnlimited;
}

/// Bytes of files that the kernel would drop before it refused memory.
std::uint64_t droppable(const std::string &folder, const std::string &name) {
    std::ifstream file(folder + "/memory.stat");
    std::string word;
    for (std::uint64_t number; file >> word >> number;) {
        if (word == name) return number;
    }
    return 0;
}

/// What the groups from `path` up to the mount's root leave; a group that the mount does not show has no say here.
std::uint64_t room_below(const std::string &mount, std::string path, const char *limit, const char *usage,
                         const char *files) {
    std::uint64_t room = kUnlimited;
    for (;;) {
        const std::string folder = mount + path;
        const std::uint64_t most = number_in(folder + "/" + limit), used = number_in(folder + "/" + usage);
        if (most != kUnlimited && used != kUnlimited) {
            const std::uint64_t held = used - std::min(used, droppable(folder, files));
            room = std::min(room, most - std::min(most, held));
        }
        if (path.empty()) return room;
        path.resize(path.rfind('/'));
    }
}

}  // namespace

std::uint64_t cgroup_room(const std::string &membership, const std::string &mount) {
    std::uint64_t room = kUnlimited;
    std::istringstream lines(membership);
    for (std::string line; std::getline(lines, line);) {  // 0::/user.slice, or 4:memory:/docker/0123
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos || line.compare(second + 1, 1, "/") != 0) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        std::string path = line.substr(second + 1);
        if (path == "/") path.clear();
        if (controllers == ",,") {
            room = std::min(room, room_below(mount, path, "memory.max", "memory.current", "inactive_file"));
        } else if (controllers.find(",memory,") != std::string::npos) {
            room = std::min(room, room_below(mount + "/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                             "total_inactive_file"));
        }
    }
    return room;
}

std::uint64_t host_room() {
    std::ifstream file("/proc/self/cgroup");
    std::ostringstream text;
    text << file.rdbuf();
    return std::min(host_available(), cgroup_room(text.str(), "/sys/fs/cgroup"));
}

std::uint64_t host_available() {
    std::ifstream file("/proc/meminfo");
    std::string line;
    while (std::getline(file, line)) {
        if (line.compare(0, 13, "MemAvailable:") == 0) return std::stoull(line.substr(13)) * 1024;
    }
    return 0;
}

std::uint64_t resident() {
    std::ifstream file("/proc/self/statm");
    std::uint64_t size = 0, pages = 0;
    file >> size >> pages;
    return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::size_t open_files() {
    std::size_t files = 0;
    if (DIR *folder = ::opendir("/proc/self/fd")) {
        while (const dirent *entry = ::readdir(folder)) files += entry->d_name[0] != '.';
        ::closedir(folder);
    }
    return files;
}

}  // namespace gt

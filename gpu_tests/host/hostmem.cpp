#include "hostmem.h"

#include <dirent.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace gt {

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

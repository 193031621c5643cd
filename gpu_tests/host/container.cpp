#include "container.h"

#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "child.h"
#include "gt_api.h"

namespace gt {
namespace {

constexpr long kCgroup2 = 0x63677270;       // CGROUP2_SUPER_MAGIC, linux/magic.h
constexpr unsigned kNobody = 65534;         // who runs containers when the runner itself is root
constexpr double kCleanUpSeconds = 60.0;
constexpr const char *kCdiFolders[] = {"/etc/cdi", "/run/cdi"};  // podman's defaults
constexpr const char *kVendors[] = {"nvidia.com/gpu", "amd.com/gpu", "intel.com/gpu"};
constexpr const char *kNodes[] = {"/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvidia-uvm*", "/dev/kfd",
                                  "/dev/dri/renderD*"};

std::string on_path(const char *program) {
    const char *path = std::getenv("PATH");
    std::istringstream folders(std::string(path ? path : "") + ":/usr/sbin:/usr/bin:/sbin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
        const std::string file = folder + "/" + program;
        if (!folder.empty() && ::access(file.c_str(), X_OK) == 0) return file;
    }
    return "";
}

std::string content(const std::string &path) {
    std::ifstream file(path);
    std::ostringstream out;
    out << file.rdbuf();
    return out.str();
}

std::vector<std::string> files_like(const char *pattern) {
    std::vector<std::string> out;
    glob_t found;
    if (::glob(pattern, 0, nullptr, &found) == 0) {
        for (std::size_t i = 0; i < found.gl_pathc; ++i) out.push_back(found.gl_pathv[i]);
    }
    ::globfree(&found);
    return out;
}

void make_folder(const std::string &path, mode_t mode = 0755) {
    if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
        throw OwnError("cannot make " + path + ": " + std::strerror(errno));
    }
    ::chmod(path.c_str(), mode);
}

int remove_one(const char *path, const struct stat *, int, FTW *) {
    ::remove(path);
    return 0;
}

/// Say why the kernel does not let users have containers of their own, if it does not.
void require_namespaces() {
    const struct {
        const char *file, *forbids;
    } switches[] = {{"/proc/sys/kernel/unprivileged_userns_clone", "0\n"},
                    {"/proc/sys/user/max_user_namespaces", "0\n"}};
    for (const auto &one : switches) {
        if (content(one.file) == one.forbids) {
            throw Inapplicable(std::string("containers without root are switched off here: ") + one.file + " is 0");
        }
    }
    struct statfs mounted;
    if (::statfs("/sys/fs/cgroup", &mounted) != 0 || mounted.f_type != kCgroup2) {
        throw Inapplicable("/sys/fs/cgroup is no cgroup2 file system, without which crun starts no container");
    }
}

}  // namespace

Container::Container(bool gpu) : podman_(on_path("podman")), root_(::geteuid() == 0) {
    if (podman_.empty()) throw Inapplicable("podman is not installed");
    for (const char *needed : {"crun", "conmon"}) {
        if (on_path(needed).empty()) throw Inapplicable(std::string(needed) + ", which podman needs, is not installed");
    }
    if (root_ && on_path("setpriv").empty()) throw Inapplicable("setpriv, which gives up root, is not installed");
    require_namespaces();
    const char *named = std::getenv("TMPDIR");
    folder_ = std::string(named && *named ? named : "/tmp") + "/kdmatrix-XXXXXX";
    if (!::mkdtemp(&folder_[0])) throw OwnError("no folder " + folder_ + ": " + std::strerror(errno));
    ::chmod(folder_.c_str(), 0755);
    // podman's own limit; its sockets lie deeper still, and the name of a socket has 108 bytes.
    if (folder_.size() + 6 > 50) throw OwnError("TMPDIR is too long for podman: " + folder_);
    make_root();
    describe(gpu);
}

Container::~Container() {
    try {
        std::vector<std::string> argv = podman();
        argv.insert(argv.end(), {"rm", "--all", "--force", "--time", "0"});
        Child(argv).wait(kCleanUpSeconds);
    } catch (const std::exception &) {
        // What cannot be removed is in a folder of its own and ends with the machine.
    }
    if (!description_.empty()) ::unlink(description_.c_str());
    ::nftw(folder_.c_str(), remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/// An empty root file system, to be filled by mounts, and folders for podman's own records.
void Container::make_root() const {
    const std::string root = folder_ + "/root";
    make_folder(root);
    // podman and crun make files and mounts below it as whoever runs the container.
    give_away(root);
    for (const char *name : {"/usr", "/etc", "/opt", "/proc", "/sys", "/dev", "/tmp", "/run", "/var", "/home"}) {
        make_folder(root + name);
        give_away(root + name);
    }
    for (const char *name : {"bin", "sbin", "lib", "lib64", "lib32"}) {
        char target[4096];
        const ssize_t n = ::readlink((std::string("/") + name).c_str(), target, sizeof target - 1);
        if (n <= 0) continue;  // not a link: an old layout, or not there
        if (::symlink(std::string(target, static_cast<std::size_t>(n)).c_str(), (root + "/" + name).c_str()) != 0) {
            throw OwnError(std::string("cannot link /") + name + ": " + std::strerror(errno));
        }
    }
    for (const char *name : {"/home", "/run"}) {
        const std::string path = folder_ + name;
        make_folder(path, 0700);
        give_away(path);
    }
}

void Container::give_away(const std::string &path) const {
    if (root_ && ::chown(path.c_str(), kNobody, kNobody) != 0) {
        throw OwnError("cannot give " + path + " away: " + std::strerror(errno));
    }
}

/// Write the CDI description, and find the vendor's.
void Container::describe(bool gpu) {
    marks_.cdi = folder_.substr(folder_.rfind('-') + 1);
    if (gpu) {
        std::set<std::string> described;  // more than one file may speak of a vendor's devices
        for (const char *pattern : kNodes) {
            for (const std::string &node : files_like(pattern)) marks_.nodes.push_back(node);
        }
        for (const char *folder : kCdiFolders) {
            for (const std::string &file : files_like((std::string(folder) + "/*").c_str())) {
                const std::string text = content(file);
                for (const char *vendor : kVendors) {
                    if (text.find(vendor) != std::string::npos) described.insert(std::string(vendor) + "=all");
                }
            }
        }
        devices_.assign(described.begin(), described.end());
    }
    std::string nodes;
    for (const std::string &node : marks_.nodes) nodes += (nodes.empty() ? "" : ",") + ("{\"path\":\"" + node + "\"}");
    const std::string kind = "kdmatrix.local/stack-" + marks_.cdi;
    devices_.push_back(kind + "=all");
    const std::string text =
        "{\"cdiVersion\":\"0.5.0\",\"kind\":\"" + kind +
        "\",\"devices\":[{\"name\":\"all\",\"containerEdits\":{\"env\":[\"KDMATRIX_CDI=" + marks_.cdi +
        "\"],\"deviceNodes\":[" + nodes + "]}}]}\n";
    // Who is no root cannot write where podman looks by itself; podman 5.1 and later can be told another place.
    const std::string place = root_ ? "/run/cdi" : folder_ + "/cdi";
    make_folder(place);
    description_ = place + "/kdmatrix-" + marks_.cdi + ".json";
    std::ofstream file(description_);
    file << text;
    if (!file.flush()) throw OwnError("cannot write " + description_);
    std::ofstream(folder_ + "/containers.conf")
        << "[engine]\ncdi_spec_dirs = [\"" << place << "\", \"/etc/cdi\", \"/run/cdi\"]\n";
}

/// podman with all its records in our folder, as a user who is not root.
std::vector<std::string> Container::podman() const {
    std::vector<std::string> argv;
    if (root_) {
        std::set<gid_t> groups;  // those that may open the device files, as a desktop's user is in `render`
        for (const std::string &node : marks_.nodes) {
            struct stat seen;
            if (::stat(node.c_str(), &seen) == 0 && seen.st_gid != 0) groups.insert(seen.st_gid);
        }
        std::string joined;
        for (gid_t group : groups) joined += (joined.empty() ? "" : ",") + std::to_string(group);
        argv = {"setpriv", "--reuid=" + std::to_string(kNobody), "--regid=" + std::to_string(kNobody),
                joined.empty() ? "--clear-groups" : "--groups=" + joined};
    }
    const char *path = std::getenv("PATH");
    const std::vector<std::string> rest = {
        // The folder that the runner was started in may be closed to who runs the container: /root is.
        "env", "-i", "--chdir=/", std::string("PATH=") + (path ? path : "/usr/sbin:/usr/bin:/sbin:/bin"),
        "HOME=" + folder_ + "/home", "XDG_RUNTIME_DIR=" + folder_ + "/run",
        "CONTAINERS_CONF_OVERRIDE=" + folder_ + "/containers.conf", podman_,
        "--root", folder_ + "/home/storage", "--runroot", folder_ + "/run/p", "--storage-driver", "vfs",
        "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "crun"};
    argv.insert(argv.end(), rest.begin(), rest.end());
    return argv;
}

std::vector<std::string> Container::command(const std::vector<std::string> &argv, const std::vector<std::string> &shown,
                                            const std::vector<std::string> &settings) const {
    std::vector<std::string> out = podman();
    out.insert(out.end(), {"run", "--rm", "--rootfs", "--read-only", "--network", "none", "--cgroups", "disabled",
                           "--log-driver", "none", "--tmpfs", "/tmp", "--group-add", "keep-groups"});
    for (const std::string &device : devices_) out.insert(out.end(), {"--device", device});
    std::vector<std::string> all = {"/usr", "/etc", "/opt"};
    all.insert(all.end(), shown.begin(), shown.end());
    for (const std::string &place : all) {
        if (::access(place.c_str(), F_OK) == 0) out.insert(out.end(), {"--volume", place + ":" + place + ":ro"});
    }
    for (const std::string &setting : settings) out.insert(out.end(), {"--env", setting});
    out.push_back(folder_ + "/root");
    out.insert(out.end(), argv.begin(), argv.end());
    return out;
}

}  // namespace gt

// The SYCL backend lies in a library of its own, opened when it is asked for: a guest without SYCL's libraries can then
// say so, where a program that is linked with them would not start.
#include <dlfcn.h>
#include <limits.h>
#include <unistd.h>

#include "gt_api.h"

namespace gt {
namespace {

/// lib/gt_sycl.so, beside the folder that this program lies in.
std::string library() {
    char path[PATH_MAX];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path - 1);
    const std::string own(path, n > 0 ? static_cast<std::size_t>(n) : 0);
    const std::string folder = own.substr(0, own.rfind('/'));
    return folder.substr(0, folder.rfind('/')) + "/lib/gt_sycl.so";
}

std::unique_ptr<Backend> open_sycl() {
    void *handle = ::dlopen(library().c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const std::string why = ::dlerror();
        // Absent libraries are the guest's; anything else is ours.
        if (why.find("cannot open shared object file") == std::string::npos) throw OwnError(why);
        throw Unavailable("no SYCL: " + why);
    }
    const auto make = reinterpret_cast<Backend *(*)()>(::dlsym(handle, "gt_make_sycl"));
    if (!make) throw OwnError(library() + " lacks the symbol gt_make_sycl");
    return std::unique_ptr<Backend>(make());
}

const RegisterBackend registered("sycl", open_sycl);

}  // namespace
}  // namespace gt

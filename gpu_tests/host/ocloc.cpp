#include "ocloc.h"

#include <dlfcn.h>

#include <cstdio>

#include "gt_api.h"

namespace gt {
namespace {

using Invoke = int (*)(unsigned, const char **, std::uint32_t, const std::uint8_t **, const std::uint64_t *,
                       const char **, std::uint32_t, const std::uint8_t **, const std::uint64_t *, const char **,
                       std::uint32_t *, std::uint8_t ***, std::uint64_t **, char ***);
using FreeOutput = int (*)(std::uint32_t *, std::uint8_t ***, std::uint64_t **, char ***);

struct Compiler {
    Invoke invoke = nullptr;
    FreeOutput free_output = nullptr;
};

const Compiler &compiler() {
    static const Compiler found = [] {
        Compiler out;
        if (void *library = ::dlopen("libocloc.so", RTLD_NOW | RTLD_LOCAL)) {
            out.invoke = reinterpret_cast<Invoke>(::dlsym(library, "oclocInvoke"));
            out.free_output = reinterpret_cast<FreeOutput>(::dlsym(library, "oclocFreeOutput"));
        }
        return out;
    }();
    return found;
}

bool ends_with(const std::string &text, const std::string &end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

bool ocloc_there() { return compiler().invoke && compiler().free_output; }

std::string ocloc_compile(const std::string &source, std::uint32_t device) {
    if (!ocloc_there()) throw Inapplicable("libocloc.so, which compiles source for Level Zero, is not installed");
    char id[16];
    std::snprintf(id, sizeof id, "0x%04x", device);
    const char *arguments[] = {"ocloc", "compile", "-q", "-file", "kernel.cl", "-device", id, "-options",
                               "-cl-std=CL1.2 -DGT_INTEL_SUBGROUPS", "-spv_only"};
    const auto *text = reinterpret_cast<const std::uint8_t *>(source.c_str());
    const std::uint64_t length = source.size() + 1;
    const char *name = "kernel.cl";
    std::uint32_t count = 0;
    std::uint8_t **data = nullptr;
    std::uint64_t *lengths = nullptr;
    char **names = nullptr;
    constexpr unsigned kArguments = sizeof arguments / sizeof *arguments;
    const int status = compiler().invoke(kArguments, arguments, 1, &text, &length, &name, 0, nullptr, nullptr, nullptr,
                                         &count, &data, &lengths, &names);
    std::string code, log;
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::string content(reinterpret_cast<const char *>(data[i]), static_cast<std::size_t>(lengths[i]));
        if (ends_with(names[i], ".spv")) code = content;
        if (ends_with(names[i], "stdout.log")) log = content;
    }
    compiler().free_output(&count, &data, &lengths, &names);
    if (status != 0 || code.empty()) {
        throw ApiFailure("ocloc does not compile for " + std::string(id) + ": " + log.substr(0, 1000), Cause::kBadImage,
                         status);
    }
    return code;
}

}  // namespace gt

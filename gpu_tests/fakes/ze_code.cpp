// The fake Level Zero's modules and kernels.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "damage.h"
#include "ze_images.h"
#include "ze_objects.h"

using namespace ze;
using namespace gt_ze;
using gt_fake::is;
namespace sim = gt_sim;

namespace {

struct Module {
    std::vector<std::string> names;
};

}  // namespace

extern "C" {

Result zeModuleCreate(Object, Object device, const ModuleDesc *desc, Object *module, Object *log) {
    if (desc->type != kModuleDesc || !known(device)) return kInvalidArgument;
    std::string told = is("build_error") ? "error: as told" : "";
    auto made = std::make_unique<Module>();
    const std::string code(reinterpret_cast<const char *>(desc->input), desc->size);
    Result result = told.empty() ? kSuccess : kModuleBuildFailure;
    if (result == kSuccess) {
        const bool native = desc->format == kFormatNative;
        const bool taken = native ? sim::kernels_of_zebin(code, sim::kFamilyDg2, &made->names) ||
                                        sim::kernels_of_patchtokens(code, sim::kCoreXeHpg, &made->names)
                                  : sim::kernels_of_spirv(code, &made->names);
        if (!taken && is("accepts_damaged")) {
            for (const auto &kernel : sim::kernels()) made->names.push_back(kernel.first);
        } else if (!taken) {
            result = native ? kInvalidNativeBinary : kModuleBuildFailure;
            told = native ? "not a binary for this device" : "error: invalid SPIR-V";
        }
    }
    if (log) *log = new std::string(told);
    if (result == kSuccess) *module = made.release();
    return result;
}
Result zeModuleDestroy(Object module) { return delete static_cast<Module *>(module), kSuccess; }
/// Of SPIR-V it is an ELF of its kernels' names; of a binary the same again.
Result zeModuleGetNativeBinary(Object module, std::size_t *bytes, std::uint8_t *binary) {
    const std::string made = sim::zebin_of(static_cast<Module *>(module)->names, sim::kFamilyDg2);
    if (binary) std::memcpy(binary, made.data(), std::min(*bytes, made.size()));
    return *bytes = made.size(), kSuccess;
}
Result zeModuleBuildLogGetString(Object log, std::size_t *bytes, char *text) {
    const std::string &told = *static_cast<std::string *>(log);
    if (text) std::memcpy(text, told.c_str(), std::min(*bytes, told.size() + 1));
    return *bytes = told.size() + 1, kSuccess;
}
Result zeModuleBuildLogDestroy(Object log) { return delete static_cast<std::string *>(log), kSuccess; }

Result zeKernelCreate(Object module, const KernelDesc *desc, Object *kernel) {
    const std::vector<std::string> &names = static_cast<Module *>(module)->names;
    const auto found = sim::kernels().find(desc->name);
    if (std::find(names.begin(), names.end(), desc->name) == names.end() || found == sim::kernels().end()) {
        return kInvalidKernelName;
    }
    auto made = std::make_unique<Kernel>();
    made->kernel = &found->second;
    made->arguments.resize(found->second.arguments);
    return *kernel = made.release(), kSuccess;
}
Result zeKernelDestroy(Object kernel) { return delete static_cast<Kernel *>(kernel), kSuccess; }
Result zeKernelSetGroupSize(Object kernel, std::uint32_t x, std::uint32_t y, std::uint32_t z) {
    if (x == 0 || y != 1 || z != 1 || x > sim::Description::kGroup) return kInvalidGroupSize;
    return static_cast<Kernel *>(kernel)->group = x, kSuccess;
}
Result zeKernelSetArgumentValue(Object object, std::uint32_t index, std::size_t bytes, const void *value) {
    auto *const kernel = static_cast<Kernel *>(object);
    if (index >= kernel->arguments.size()) return kInvalidKernelArgumentIndex;
    if (bytes != kernel->kernel->sizes[index]) return kInvalidKernelArgumentSize;
    kernel->arguments[index] = 0;
    std::memcpy(&kernel->arguments[index], value, bytes);
    return kSuccess;
}

}  // extern "C"

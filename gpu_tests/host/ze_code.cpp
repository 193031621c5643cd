#include "ze_code.h"

#include <cstdio>

#include "ocloc.h"
#include "ze_memory.h"

namespace gt {
namespace ze_driver {

using namespace ze;

std::vector<CodeTarget> Code::targets() const {
    std::vector<CodeTarget> out;
    const std::string own = target_of(on_.about);
    if (!own.empty()) out.push_back({Form::kBinary, "binary", own, "bin"});
    out.push_back({Form::kIntermediate, "spirv", "spirv", "spv"});
    if (ocloc_there()) out.push_back({Form::kSource, "source", "", ""});
    return out;
}

Object Code::module(Form form, const std::string &code) {
    const std::string compiled = form == Form::kSource ? ocloc_compile(code, on_.about.device) : code;
    ModuleDesc desc;
    desc.format = form == Form::kBinary ? kFormatNative : kFormatSpirv;
    desc.size = compiled.size();
    desc.input = reinterpret_cast<const std::uint8_t *>(compiled.data());
    Object module = nullptr, log = nullptr;
    const Result status = on_.api.zeModuleCreate(on_.context, on_.device, &desc, &module, &log);
    const std::string told = take_log(on_.api, log);
    if (status != kSuccess) {
        char text[80];
        std::snprintf(text, sizeof text, "zeModuleCreate failed with Level Zero error 0x%08x", status);
        throw ApiFailure(text + (told.empty() ? "" : ": " + told), cause_of(status), static_cast<long>(status));
    }
    modules_.insert(module);
    return module;
}

void Code::unload(Object module) {
    if (!modules_.erase(module)) return;
    // Kernels go before their module.
    for (auto it = kernels_.begin(); it != kernels_.end();) {
        if (it->second == module) {
            on_.api.zeKernelDestroy(it->first);
            it = kernels_.erase(it);
        } else {
            ++it;
        }
    }
    on_.api.zeModuleDestroy(module);
}

std::string Code::binary(Object module) const {
    std::size_t size = 0;
    must(on_.api.zeModuleGetNativeBinary(module, &size, nullptr), "zeModuleGetNativeBinary");
    std::string out(size, '\0');
    auto *bytes = reinterpret_cast<std::uint8_t *>(&out[0]);
    must(on_.api.zeModuleGetNativeBinary(module, &size, bytes), "zeModuleGetNativeBinary");
    return out;
}

Object Code::kernel(Object module, const char *name) {
    KernelDesc desc;
    desc.name = name;
    Object kernel = nullptr;
    must(on_.api.zeKernelCreate(module, &desc, &kernel), "zeKernelCreate");
    kernels_.insert({kernel, module});
    return kernel;
}

void Code::release() {
    for (const auto &kernel : kernels_) on_.api.zeKernelDestroy(kernel.first);
    for (Object module : modules_) on_.api.zeModuleDestroy(module);
    kernels_.clear(), modules_.clear();
}

void append_launch(const Opened &on, Object list, Object kernel, std::size_t items, std::size_t group,
                   const std::vector<Arg> &args, Object event) {
    const Api &api = on.api;
    for (std::uint32_t i = 0; i < args.size(); ++i) {
        const Arg &arg = args[i];
        if (arg.buffer) {
            void *const *address = &static_cast<Buffer *>(arg.buffer)->address;
            must(api.zeKernelSetArgumentValue(kernel, i, sizeof(void *), address), "zeKernelSetArgumentValue");
        } else {
            must(api.zeKernelSetArgumentValue(kernel, i, arg.size, arg.bytes), "zeKernelSetArgumentValue");
        }
    }
    must(api.zeKernelSetGroupSize(kernel, static_cast<std::uint32_t>(group), 1, 1), "zeKernelSetGroupSize");
    GroupCount count;
    count.x = static_cast<std::uint32_t>((items + group - 1) / group);
    must(api.zeCommandListAppendLaunchKernel(list, kernel, &count, event, 0, nullptr),
         "zeCommandListAppendLaunchKernel");
}

}  // namespace ze_driver
}  // namespace gt

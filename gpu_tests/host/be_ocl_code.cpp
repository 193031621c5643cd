#include "be_ocl.h"

namespace gt {
namespace ocl {

std::vector<CodeTarget> OpenCl::targets() {
    std::vector<CodeTarget> out;
    if (api_.clCreateProgramWithIL && text(device_, kDeviceIlVersion).find("SPIR-V") != std::string::npos) {
        out.push_back({Form::kIntermediate, "spirv", "spirv", "spv"});
    }
    out.push_back({Form::kSource, "source", "", ""});
    return out;
}

Handle OpenCl::module(Form form, const std::string &code) {
    Int status = kSuccess, loaded = kSuccess;
    const char *text = code.data();
    const std::size_t length = code.size();
    Object program = nullptr;
    if (form == Form::kSource) {
        program = api_.clCreateProgramWithSource(context_, 1, &text, &length, &status);
        must(status, "clCreateProgramWithSource");
    } else if (form == Form::kIntermediate) {
        if (!api_.clCreateProgramWithIL) throw Inapplicable("the OpenCL loader takes no SPIR-V");
        program = api_.clCreateProgramWithIL(context_, text, length, &status);
        must(status, "clCreateProgramWithIL");
    } else {
        const auto *bytes = reinterpret_cast<const unsigned char *>(text);
        program = api_.clCreateProgramWithBinary(context_, 1, &device_, &length, &bytes, &loaded, &status);
        must(status, "clCreateProgramWithBinary");
    }
    status = api_.clBuildProgram(program, 1, &device_, form == Form::kSource ? "-cl-std=CL1.2" : "", nullptr, nullptr);
    if (status != kSuccess) {
        const std::string why = "clBuildProgram failed with " + std::to_string(status) + log(program);
        api_.clReleaseProgram(program);
        throw ApiFailure(why, cause_of(status), status);
    }
    programs_.insert(program);
    return program;
}

void OpenCl::unload(Handle module) {
    if (programs_.erase(module)) api_.clReleaseProgram(module);
}

std::string OpenCl::binary(Handle module) {
    std::size_t size = 0;
    must(api_.clGetProgramInfo(module, kProgramBinarySizes, sizeof size, &size, nullptr), "clGetProgramInfo");
    if (size == 0) throw Inapplicable("the driver gives no binary of a program");
    std::string out(size, '\0');
    char *place = &out[0];
    must(api_.clGetProgramInfo(module, kProgramBinaries, sizeof place, &place, nullptr), "clGetProgramInfo");
    return out;
}

Handle OpenCl::kernel(Handle module, const char *name) {
    Int status = kSuccess;
    Object kernel = api_.clCreateKernel(module, name, &status);
    must(status, "clCreateKernel");
    kernels_.insert(kernel);
    return kernel;
}

std::string OpenCl::log(Object program) {
    std::vector<char> buffer(16384, '\0');
    const Int status = api_.clGetProgramBuildInfo(program, device_, kProgramBuildLog, buffer.size() - 1,
                                                  buffer.data(), nullptr);
    return status == kSuccess ? std::string(": ") + buffer.data() : "";
}

}  // namespace ocl
}  // namespace gt

#include "rtc.h"

#include <dlfcn.h>

#include <initializer_list>

#include "gt_api.h"

namespace gt {
namespace {

template <class F>
void look_up(F &function, void *library, const std::string &name) {
    function = reinterpret_cast<F>(::dlsym(library, name.c_str()));
    if (!function) throw ApiFailure("the compiler's library lacks the symbol " + name);
}

RunTimeCompiler find(void *driver, const std::string &prefix, const std::string &code,
                     std::initializer_list<const char *> libraries, const char *what) {
    void *library = ::dlsym(driver, (prefix + "CreateProgram").c_str()) ? driver : nullptr;
    for (const char *name : libraries) {
        if (!library) library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (!library) throw Inapplicable(std::string(what) + " is not installed, so source cannot be compiled");
    RunTimeCompiler compiler;
    look_up(compiler.create, library, prefix + "CreateProgram");
    look_up(compiler.destroy, library, prefix + "DestroyProgram");
    look_up(compiler.compile, library, prefix + "CompileProgram");
    look_up(compiler.code_size, library, prefix + "Get" + code + "Size");
    look_up(compiler.code, library, prefix + "Get" + code);
    look_up(compiler.log_size, library, prefix + "GetProgramLogSize");
    look_up(compiler.log, library, prefix + "GetProgramLog");
    return compiler;
}

void must(int status, const char *what) {
    if (status == 0) return;
    throw ApiFailure(std::string(what) + " failed with " + std::to_string(status), Cause::kBadImage, status);
}

}  // namespace

RunTimeCompiler find_nvrtc(void *driver) {
    return find(driver, "nvrtc", "PTX", {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"}, "NVRTC");
}

RunTimeCompiler find_hiprtc(void *driver) {
    return find(driver, "hiprtc", "Code", {"libhiprtc.so.7", "libhiprtc.so.6", "libhiprtc.so.5"}, "hiprtc");
}

std::string compiled(const RunTimeCompiler &compiler, const std::string &source, const std::string &option) {
    void *program = nullptr;
    must(compiler.create(&program, source.c_str(), "gt_kernel.cu", 0, nullptr, nullptr), "making a program");
    const char *options[] = {option.c_str(), "-std=c++14"};
    const int status = compiler.compile(program, 2, options);
    std::size_t bytes = 0;
    std::string out;
    if (status != 0) {
        if (compiler.log_size(program, &bytes) == 0 && bytes > 1 && bytes < (1u << 20)) {
            out.resize(bytes);
            if (compiler.log(program, &out[0]) == 0) out = ": " + std::string(out.c_str());
        }
        compiler.destroy(&program);
        throw ApiFailure("compiling the source failed with " + std::to_string(status) + out, Cause::kBadImage, status);
    }
    must(compiler.code_size(program, &bytes), "asking for the size of the code");
    out.resize(bytes);
    must(compiler.code(program, &out[0]), "asking for the code");
    compiler.destroy(&program);
    return out;
}

}  // namespace gt

// Compilers of device code that run in this process: NVRTC and hiprtc, which have the same calls.
#pragma once

#include <string>

namespace gt {

struct RunTimeCompiler {
    int (*create)(void **program, const char *source, const char *name, int headers, const char *const *texts,
                  const char *const *names) = nullptr;
    int (*destroy)(void **program) = nullptr;
    int (*compile)(void *program, int count, const char *const *options) = nullptr;
    int (*code_size)(void *program, std::size_t *bytes) = nullptr;
    int (*code)(void *program, char *code) = nullptr;
    int (*log_size)(void *program, std::size_t *bytes) = nullptr;
    int (*log)(void *program, char *log) = nullptr;
};

/// Look in the driver's library (fakes, and HIP before 7, have it there), then for the compiler's own. Throws
/// Inapplicable when none is installed.
RunTimeCompiler find_nvrtc(void *driver);
RunTimeCompiler find_hiprtc(void *driver);

/// The code that it makes of the source. Throws ApiFailure (bad image) with the compiler's own words.
std::string compiled(const RunTimeCompiler &compiler, const std::string &source, const std::string &option);

}  // namespace gt

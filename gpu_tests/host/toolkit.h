// Compiles device code with the compiler that a driver stack brought along, where it brought one.
#pragma once

#include <string>

#include "test.h"

namespace gt {

/// The compiler that makes binaries of the kind that `target` names: nvcc, hipcc or ocloc. Empty: it is not installed.
std::string toolkit_program(const CodeTarget &target);
/// What it is called, for a reason why there is none.
const char *toolkit_name(const CodeTarget &target);

/// Compile `source` for `architecture` and return the binary. A compiler that refuses, crashes or takes longer than
/// `seconds` throws ApiFailure with the end of what it said: it belongs to the product.
std::string toolkit_compile(const std::string &program, const CodeTarget &target, const std::string &architecture,
                            const std::string &source, double seconds);

}  // namespace gt

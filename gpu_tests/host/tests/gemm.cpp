// Matrix products in every format of numbers that a device has: exact on whole numbers, timed on random ones.
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "../blas.h"
#include "../gemm.h"

namespace {

using namespace gt;

constexpr Shape kTile{64, 64, 16};
constexpr GemmKernel kPortable[] = {
    {"fp32", "gt_gemm_fp32", Number::kFp32, Sum::kFp32, Engine::kVector, kTile, true, 256, 0},
    {"fp16", "gt_gemm_fp16", Number::kFp16, Sum::kFp32, Engine::kVector, kTile, true, 256, 0},
    {"bf16", "gt_gemm_bf16", Number::kBf16, Sum::kFp32, Engine::kVector, kTile, true, 256, 0},
    {"int8", "gt_gemm_int8", Number::kInt8, Sum::kInt32, Engine::kVector, kTile, true, 256, 0},
    {"fp8", "gt_gemm_fp8", Number::kFp8, Sum::kFp32, Engine::kVector, kTile, true, 256, 0},
    {"fp64", "gt_gemm_fp64", Number::kFp64, Sum::kFp64, Engine::kVector, kTile, true, 256, 0},
};

constexpr Shape kMma{128, 128, 64};  // k of the narrowest format; a multiple of what the others need
constexpr GemmKernel kNvidia[] = {
    {"bf16_mma", "gt_gemm_mma_bf16", Number::kBf16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp16_mma", "gt_gemm_mma_fp16", Number::kFp16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"tf32_mma", "gt_gemm_mma_tf32", Number::kTf32, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"int8_mma", "gt_gemm_mma_int8", Number::kInt8, Sum::kInt32, Engine::kMatrix, kMma, false, 256, 0},
};
constexpr const char *kFp8Symbol = "gt_gemm_mma_fp8";

constexpr Shape kWgmma{128, 256, 64};
constexpr std::size_t kWgmmaShared = 4 * 384 * 128 + 1024;
constexpr GemmKernel kHopper[] = {
    {"bf16_wgmma", "gt_gemm_wgmma_bf16", Number::kBf16, Sum::kFp32, Engine::kMatrix, kWgmma, false, 256, kWgmmaShared},
    {"fp16_wgmma", "gt_gemm_wgmma_fp16", Number::kFp16, Sum::kFp32, Engine::kMatrix, kWgmma, false, 256, kWgmmaShared},
};

constexpr GemmKernel kAmd[] = {
    {"bf16_mfma", "gt_gemm_mfma_bf16", Number::kBf16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp16_mfma", "gt_gemm_mfma_fp16", Number::kFp16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp32_mfma", "gt_gemm_mfma_fp32", Number::kFp32, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp64_mfma", "gt_gemm_mfma_fp64", Number::kFp64, Sum::kFp64, Engine::kMatrix, kMma, false, 256, 0},
};
constexpr GemmKernel kMi200[] = {
    {"int8_mfma", "gt_gemm_mfma_narrow_int8", Number::kInt8, Sum::kInt32, Engine::kMatrix, kMma, false, 256, 0},
};
constexpr GemmKernel kMi300[] = {
    {"int8_mfma", "gt_gemm_mfma_int8", Number::kInt8, Sum::kInt32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp8_mfma", "gt_gemm_mfma_fp8", Number::kFp8Fnuz, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
};

constexpr GemmKernel kRdna3[] = {
    {"bf16_wmma", "gt_gemm_wmma_gfx11_bf16", Number::kBf16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp16_wmma", "gt_gemm_wmma_gfx11_fp16", Number::kFp16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"int8_wmma", "gt_gemm_wmma_gfx11_int8", Number::kInt8, Sum::kInt32, Engine::kMatrix, kMma, false, 256, 0},
};
constexpr GemmKernel kRdna4[] = {
    {"bf16_wmma", "gt_gemm_wmma_gfx12_bf16", Number::kBf16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp16_wmma", "gt_gemm_wmma_gfx12_fp16", Number::kFp16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"int8_wmma", "gt_gemm_wmma_gfx12_int8", Number::kInt8, Sum::kInt32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp8_wmma", "gt_gemm_wmma_gfx12_fp8", Number::kFp8, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
};

constexpr GemmKernel kIntel[] = {
    {"bf16_xmx", "gt_gemm_xmx_bf16", Number::kBf16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"fp16_xmx", "gt_gemm_xmx_fp16", Number::kFp16, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0},
    {"int8_xmx", "gt_gemm_xmx_int8", Number::kInt8, Sum::kInt32, Engine::kMatrix, kMma, false, 256, 0},
};

/// The number in sm_90, sm_120 …; 0 for what is not NVIDIA's.
int compute_capability(const std::string &architecture) {
    return architecture.rfind("sm_", 0) == 0 ? std::atoi(architecture.c_str() + 3) : 0;
}

/// NVIDIA's tensor cores; only through CUDA, whose language has their instructions. They have never run on hardware:
/// their index maps are proved by emulation.
void tensor_cores(Context &context, MatrixData &data, double seconds) {
    const int capability = compute_capability(context.backend.properties().architecture);
    if (context.options.backend != "cuda" || context.kind() != "gpu" || capability < 80) {
        context.skipped("mma", "no tensor cores of sm_80 or later behind this backend");
        return;
    }
    const Handle module = context.module("mma_nv");
    for (const GemmKernel &kernel : kNvidia) {
        measure(context, data, *kernel_multiplier(context, module, kernel), seconds);
        if (!context.first_failure().empty()) return;
    }
    if (capability < 89) return context.skipped("fp8_mma", "tensor cores take fp8 since sm_89");
    std::unique_ptr<Multiplier> fp8;
    try {
        fp8 = kernel_multiplier(
            context, module, {"fp8_mma", kFp8Symbol, Number::kFp8, Sum::kFp32, Engine::kMatrix, kMma, false, 256, 0});
    } catch (const ApiFailure &e) {
        return context.skipped("fp8_mma", std::string("the form of code that loaded has no fp8: ") + e.what());
    }
    measure(context, data, *fp8, seconds);
}

/// Hopper's tensor cores as only Hopper has them: compiled ahead of time for sm_90a, and for nothing else.
void hopper(Context &context, MatrixData &data, double seconds) {
    if (context.options.backend != "cuda" || context.kind() != "gpu" ||
        compute_capability(context.backend.properties().architecture) != 90) {
        context.skipped("wgmma", "no tensor cores of sm_90 behind this backend");
        return;
    }
    Handle module = nullptr;
    try {
        module = context.module("wgmma_nv", {{Form::kBinary, "binary", "sm_90a", "cubin"}});
    } catch (const Inapplicable &e) {
        return context.skipped("wgmma", e.what());
    }
    for (const GemmKernel &kernel : kHopper) {
        measure(context, data, *kernel_multiplier(context, module, kernel), seconds);
        if (!context.first_failure().empty()) return;
    }
}

/// What an architecture of AMD's has to multiply matrices: the file of kernels, and its kernels.
struct MatrixUnits {
    std::string what, file;
    std::vector<GemmKernel> kernels;
    bool fp8 = false;
};

template <std::size_t N, std::size_t M>
std::vector<GemmKernel> both(const GemmKernel (&first)[N], const GemmKernel (&second)[M]) {
    std::vector<GemmKernel> out(std::begin(first), std::end(first));
    out.insert(out.end(), std::begin(second), std::end(second));
    return out;
}

/// Without kernels where the architecture is none of those.
MatrixUnits amd_units(const std::string &architecture) {
    const auto family = [&](const char *name) { return architecture.rfind(name, 0) == 0; };
    if (architecture == "gfx90a") return {"mfma", "mma_amd", both(kAmd, kMi200), false};
    if (architecture == "gfx942") return {"mfma", "mma_amd", both(kAmd, kMi300), true};
    if (family("gfx110") || family("gfx115")) {
        return {"wmma", "wmma_amd", {std::begin(kRdna3), std::end(kRdna3)}, false};
    }
    if (family("gfx120")) return {"wmma", "wmma_amd", {std::begin(kRdna4), std::end(kRdna4)}, true};
    return {};
}

/// AMD's matrix cores; only through HIP, for whose architectures alone the instructions are compiled. They have never
/// run on hardware: their index maps are proved by emulation.
void matrix_cores(Context &context, MatrixData &data, double seconds) {
    const MatrixUnits units = amd_units(context.backend.properties().architecture);
    const bool there = context.options.backend == "hip" && context.kind() == "gpu";
    const std::string behind = " behind this backend";
    if (!there || units.what != "mfma") context.skipped("mfma", "no matrix cores of gfx90a or gfx942" + behind);
    if (!there || units.what != "wmma") context.skipped("wmma", "no matrix units of gfx11 or gfx12" + behind);
    if (!there || units.kernels.empty()) return;
    const Handle module = context.module(units.file);
    for (const GemmKernel &kernel : units.kernels) {
        measure(context, data, *kernel_multiplier(context, module, kernel), seconds);
        if (!context.first_failure().empty()) return;
    }
    if (!units.fp8) context.skipped("fp8_" + units.what, "these matrix units take no fp8");
}

/// Intel's matrix engines: through OpenCL, whose language alone has the functions, as source; and through Level Zero,
/// as what ocloc made of it. They have never run on hardware: their index maps are proved by emulation.
void matrix_engines(Context &context, MatrixData &data, double seconds) {
    const Properties properties = context.backend.properties();
    const bool level_zero = context.options.backend == "level-zero";
    const bool targeted = properties.architecture == "pvc" || properties.architecture.rfind("dg2-", 0) == 0;
    const bool known = properties.matrix_subgroup == 8 || properties.matrix_subgroup == 16;
    if (context.kind() != "gpu" || !(level_zero ? targeted : known)) {
        return context.skipped("xmx", "no matrix engines of Xe-HPG, Xe-HPC or later behind this backend");
    }
    Handle module = nullptr;
    try {
        const std::string lanes = "#define GT_XMX_LANES " + std::to_string(properties.matrix_subgroup) + "\n";
        CodeTarget target{Form::kSource, "source", "", ""};
        if (level_zero) target = {Form::kBinary, "binary", properties.architecture + "-xmx", "bin"};
        module = context.module("mma_intel", {target}, lanes);
    } catch (const Inapplicable &e) {
        return context.skipped("xmx", e.what());
    }
    for (const GemmKernel &kernel : kIntel) {
        measure(context, data, *kernel_multiplier(context, module, kernel), seconds);
        if (!context.first_failure().empty()) return;
    }
}

void gemm(Context &context) {
    context.open_device();
    const Properties properties = context.backend.properties();
    MatrixData data(context);
    const Handle module = context.module("gemm");
    const double each = context.options.budget / 6;
    for (const GemmKernel &kernel : kPortable) {
        if (kernel.in == Number::kFp64 && !properties.fp64) {
            context.skipped(kernel.name, "the device has no fp64");
            continue;
        }
        measure(context, data, *kernel_multiplier(context, module, kernel), each);
        if (!context.first_failure().empty()) return;
    }
    tensor_cores(context, data, each / 2);
    if (!context.first_failure().empty()) return;
    hopper(context, data, each / 2);
    if (!context.first_failure().empty()) return;
    vendor_blas(context, data, each / 2);
    if (!context.first_failure().empty()) return;
    matrix_cores(context, data, each / 2);
    if (!context.first_failure().empty()) return;
    matrix_engines(context, data, each / 2);
    data.check();
}

GT_TEST("gemm", gemm);

}  // namespace

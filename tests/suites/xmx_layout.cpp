// Runs kernels/mma_intel.inc on this CPU in sub-groups of GT_XMX_LANES, with the matrix function as its extension
// defines it.
//
// Compiled as `gt_lang.h` + `mma_intel.inc` (KERNELS) in the middle of this file. Exit status 0: every product is
// exact.
#include "matrix_items.h"

constexpr int kLanes = GT_XMX_LANES, kSubgroups = 256 / kLanes;
struct Deposit {
    unsigned char a[8][32 / kLanes];  // of each of 8 rows, what a lane contributes
    double b[32];                     // a column
};
static Meeting subgroups[kSubgroups];  // of kLanes each
static Deposit deposits[kSubgroups][kLanes];

static gt::Number format(const char *function) {
    if (!std::strcmp(function, "intel_sub_group_bf16_bf16_matrix_mad_k16")) return gt::Number::kBf16;
    return std::strcmp(function, "intel_sub_group_i8_i8_matrix_mad_k32") ? gt::Number::kFp16 : gt::Number::kInt8;
}

// cl_intel_subgroup_matrix_multiply_accumulate, "Subgroup Matrix Multiply Accumulate Instructions": `a` has M rows, its
// vector's components, of which each work item contributes an equal part of the K elements (32 bits of a row where the
// sub-group is 8, 16 where it is 16); each work item contributes a column of `b`, packed into 256 bits, and has one of
// `acc` and of the result.
template <class T, class Part>
static void gt_cpu_dpas(const char *function, T *c, const Part *a, const unsigned *b) {
    static_assert(sizeof(Part) == 32 / kLanes, "what a work item contributes of a row");
    const int subgroup = static_cast<int>(item.local) / kLanes, lane = static_cast<int>(item.local) % kLanes;
    const gt::Number number = format(function);
    const int k = 32 / static_cast<int>(gt::bytes_of(number));
    std::memcpy(deposits[subgroup][lane].a, a, sizeof deposits[subgroup][lane].a);
    decode_registers(number, b, k, deposits[subgroup][lane].b);
    meet(subgroups[subgroup]);
    for (int row = 0; row < 8; ++row) {
        unsigned char bytes[32];
        double left[32], sum = 0.0;
        for (int of = 0; of < kLanes; ++of) {
            std::memcpy(bytes + of * sizeof(Part), deposits[subgroup][of].a[row], sizeof(Part));
        }
        decode_registers(number, bytes, k, left);
        for (int e = 0; e < k; ++e) sum += left[e] * deposits[subgroup][lane].b[e];
        c[row] += static_cast<T>(sum);
    }
    meet(subgroups[subgroup]);
}

#define GT_CPU
#define GT_CPU_MMA
#include KERNELS

int main() {
    for (Meeting &meeting : subgroups) meeting.size = kLanes;
    int bad = product<float>("bf16", gt::Number::kBf16, gt_gemm_xmx_bf16, 128, 128, 192);
    bad += product<float>("fp16", gt::Number::kFp16, gt_gemm_xmx_fp16, 128, 128, 192);
    bad += product<gt_int>("int8", gt::Number::kInt8, gt_gemm_xmx_int8, 128, 128, 192);
    return bad != 0;
}

// Runs kernels/mma_nv.inc on this CPU, with the matrix instruction as the PTX ISA defines its fragments.
//
// Compiled as `gt_lang.h` + `mma_nv.inc` (KERNELS) in the middle of this file. Exit status 0: every product is exact.
#include "matrix_items.h"

struct Deposit {
    double a[16], b[8];
};
static Meeting warps[8] = {{32}, {32}, {32}, {32}, {32}, {32}, {32}, {32}};
static Deposit deposits[8][32];

static gt::Number format(const char *types) {
    if (!std::strcmp(types, "bf16.bf16")) return gt::Number::kBf16;
    if (!std::strcmp(types, "f16.f16")) return gt::Number::kFp16;
    if (!std::strcmp(types, "tf32.tf32")) return gt::Number::kTf32;
    return std::strcmp(types, "s8.s8") ? gt::Number::kFp8 : gt::Number::kInt8;
}

// Element (row, k) of A and (k, column) of B, from the registers of the lanes that hold them. PTX ISA 9.7.14.5: with
// groupID = lane >> 2 and threadID_in_group = lane % 4, for m16n8k16 element i of A is at row groupID for i in
// {0,1,4,5}, else groupID + 8, and at k = threadID_in_group * 2 + (i & 1), plus 8 for i >= 4; m16n8k8 (tf32) and
// m16n8k32 likewise.
static double a_element(int warp, gt::Number n, int row, int k) {
    const int each = 4 / static_cast<int>(gt::bytes_of(n)),
              half = 4 * each;  // elements a register, k of the first half
    return deposits[warp][row % 8 * 4 + k % half / each].a[(k / half * 2 + row / 8) * each + k % each];
}
static double b_element(int warp, gt::Number n, int k, int column) {
    const int each = 4 / static_cast<int>(gt::bytes_of(n)), half = 4 * each;
    return deposits[warp][column * 4 + k % half / each].b[k / half * each + k % each];
}
template <class T>
static void gt_cpu_mma(const char *types, T *c, const unsigned *a, const unsigned *b) {
    const int warp = item.local / 32, lane = item.local % 32;
    const gt::Number n = format(types);
    const int each = 4 / static_cast<int>(gt::bytes_of(n));
    decode_registers(n, a, 4 * each, deposits[warp][lane].a);
    decode_registers(n, b, 2 * each, deposits[warp][lane].b);
    meet(warps[warp]);
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
        double sum = 0.0;
        for (int k = 0; k < 8 * each; ++k) {
            sum += a_element(warp, n, row, k) * b_element(warp, n, k, column);
        }
        c[i] += static_cast<T>(sum);
    }
    meet(warps[warp]);
}

#define GT_CPU
#define GT_CPU_MMA
#include KERNELS

int main() {
    int bad = product<float>("bf16", gt::Number::kBf16, gt_gemm_mma_bf16, 128, 128, 192);
    bad += product<float>("fp16", gt::Number::kFp16, gt_gemm_mma_fp16, 128, 128, 192);
    bad += product<float>("tf32", gt::Number::kTf32, gt_gemm_mma_tf32, 128, 128, 192);
    bad += product<gt_int>("int8", gt::Number::kInt8, gt_gemm_mma_int8, 128, 128, 192);
    bad += product<float>("fp8", gt::Number::kFp8, gt_gemm_mma_fp8, 128, 128, 192);
    return bad != 0;
}

// Runs kernels/mma_nv.inc on this CPU: a thread an item, and the matrix instruction as the PTX ISA defines its fragments.
//
// Compiled as `gt_lang.h` + `mma_nv.inc` (KERNELS) in the middle of this file. Exit status 0: every product is exact.
#include "matrix_threads.h"

static pthread_barrier_t warp_barriers[8];
struct Deposit {
    unsigned a[4], b[2];
};
static Deposit deposits[8][32];

static gt::Number format(const char *types) {
    if (!std::strcmp(types, "bf16.bf16")) return gt::Number::kBf16;
    if (!std::strcmp(types, "f16.f16")) return gt::Number::kFp16;
    if (!std::strcmp(types, "tf32.tf32")) return gt::Number::kTf32;
    return std::strcmp(types, "s8.s8") ? gt::Number::kFp8 : gt::Number::kInt8;
}

// Element (row, k) of A and (k, column) of B, from the registers of the lanes that hold them. PTX ISA 9.7.14.5: with
// groupID = lane >> 2 and threadID_in_group = lane % 4, for m16n8k16 element i of A is at row groupID for i in {0,1,4,5}, else
// groupID + 8, and at k = threadID_in_group * 2 + (i & 1), plus 8 for i >= 4; m16n8k8 (tf32) and m16n8k32 likewise.
static double a_element(int warp, gt::Number n, int row, int k) {
    const int each = 4 / static_cast<int>(gt::bytes_of(n)), half = 4 * each;  // elements a register, k of the first half
    const int lane = row % 8 * 4 + k % half / each, i = (k / half * 2 + row / 8) * each + k % each;
    const unsigned word = deposits[warp][lane].a[i / each] >> (32 / each * (i % each));
    return gt::decode(n, each == 1 ? word : word & ((1u << 32 / each) - 1));
}
static double b_element(int warp, gt::Number n, int k, int column) {
    const int each = 4 / static_cast<int>(gt::bytes_of(n)), half = 4 * each;
    const int lane = column * 4 + k % half / each, i = k / half * each + k % each;
    const unsigned word = deposits[warp][lane].b[i / each] >> (32 / each * (i % each));
    return gt::decode(n, each == 1 ? word : word & ((1u << 32 / each) - 1));
}
template <class T>
static void gt_cpu_mma(const char *types, T *c, const unsigned *a, const unsigned *b) {
    const int warp = item.local / 32, lane = item.local % 32;
    std::memcpy(deposits[warp][lane].a, a, 16);
    std::memcpy(deposits[warp][lane].b, b, 8);
    pthread_barrier_wait(&warp_barriers[warp]);
    const gt::Number n = format(types);
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
        double sum = 0.0;
        for (int k = 0; k < 32 / static_cast<int>(gt::bytes_of(n)); ++k) {
            sum += a_element(warp, n, row, k) * b_element(warp, n, k, column);
        }
        c[i] += static_cast<T>(sum);
    }
    pthread_barrier_wait(&warp_barriers[warp]);
}

#define GT_CPU
#define GT_CPU_MMA
#include KERNELS

int main() {
    for (pthread_barrier_t &barrier : warp_barriers) pthread_barrier_init(&barrier, nullptr, 32);
    int bad = product<float>("bf16", gt::Number::kBf16, gt_gemm_mma_bf16, 128, 128, 192);
    bad += product<float>("fp16", gt::Number::kFp16, gt_gemm_mma_fp16, 128, 128, 192);
    bad += product<float>("tf32", gt::Number::kTf32, gt_gemm_mma_tf32, 128, 128, 192);
    bad += product<gt_int>("int8", gt::Number::kInt8, gt_gemm_mma_int8, 128, 128, 192);
    bad += product<float>("fp8", gt::Number::kFp8, gt_gemm_mma_fp8, 128, 128, 192);
    return bad != 0;
}

// Runs kernels/wgmma_nv.inc on this CPU, with wgmma reading shared memory as the PTX ISA has it.
//
// Compiled as `gt_lang.h` + `wgmma_nv.inc` (KERNELS) in the middle of this file. Exit status 0: every product is exact.
// What is asynchronous on the hardware is done at once here: no proof that the waits suffice.
#include "matrix_items.h"

static unsigned char gt_cpu_shared[1 << 18];  // all that a descriptor can address
static Meeting warpgroups[2] = {{128}, {128}};
/// What the instruction reads of shared memory: decoded once for all items of a warpgroup.
struct Operands {
    unsigned long long a, b;  // the descriptors, which the PTX ISA wants to be the same in all warps of a warpgroup
    double left[64][16], right[256][16];
};
static Operands operands[2];

// Element (row, k) of an operand, from its descriptor. PTX ISA, "Matrix Descriptor Format": bits 0-13 start address,
// 32-45 stride dimension byte offset, each without its 4 lowest bits, 49-51 base offset, 62-63 swizzling mode.
// "Canonical Layouts", K-major, 128 bytes: Swizzle<3, 4, 3> of ((8, m), (T, 2k)) : ((8T, SBO), (1, T)), with T = 8
// elements of 16 bits.
static double element(gt::Number number, unsigned long long descriptor, int row, int k) {
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) return 1e9;  // not what this emulation is for
    const unsigned start = static_cast<unsigned>(descriptor & 0x3FFF) << 4;
    const unsigned stride = static_cast<unsigned>(descriptor >> 32 & 0x3FFF) << 4;
    const unsigned plain = start + static_cast<unsigned>(row % 8 * 128 + k / 8 * 16 + k % 8 * 2) +
                           static_cast<unsigned>(row / 8) * stride;
    std::uint16_t bits;
    std::memcpy(&bits, gt_cpu_shared + ((plain ^ (plain >> 7 & 7) << 4) & 0x3FFFF), sizeof bits);
    return gt::decode(number, bits);
}

// Accumulator D of m64nNk16: the warps of a warpgroup hold 16 rows each; a lane holds d[i] at row lane / 4, 8 below for
// i & 2, and at column 8 * (i / 4) + lane % 4 * 2 + (i & 1).
static void gt_cpu_wgmma(const char *types, float *d, unsigned long long a, unsigned long long b) {
    const int local = static_cast<int>(item.local) % 128, warp = local / 32, lane = local % 32;
    Meeting &warpgroup = warpgroups[item.local / 128];
    Operands &of = operands[item.local / 128];
    meet(warpgroup);
    if (local == 0) {
        const gt::Number number = std::strcmp(types, "bf16.bf16") ? gt::Number::kFp16 : gt::Number::kBf16;
        of.a = a, of.b = b;
        for (int k = 0; k < 16; ++k) {
            for (int row = 0; row < 64; ++row) of.left[row][k] = element(number, a, row, k);
            for (int column = 0; column < 256; ++column) of.right[column][k] = element(number, b, column, k);
        }
    }
    meet(warpgroup);
    if (a != of.a || b != of.b) d[0] = 1e9f;
    for (int i = 0; i < 128; ++i) {
        const int row = 16 * warp + lane / 4 + (i & 2 ? 8 : 0), column = 8 * (i / 4) + lane % 4 * 2 + (i & 1);
        double sum = 0.0;
        for (int k = 0; k < 16; ++k) sum += of.left[row][k] * of.right[column][k];
        d[i] += static_cast<float>(sum);
    }
    meet(warpgroup);
}

#define GT_CPU
#define GT_CPU_MMA
#include KERNELS

int main() {
    int bad = product<float>("bf16", gt::Number::kBf16, gt_gemm_wgmma_bf16, 128, 256, 640);
    bad += product<float>("fp16", gt::Number::kFp16, gt_gemm_wgmma_fp16, 128, 256, 640);
    return bad != 0;
}

// Runs kernels/mma_amd.inc on this CPU, with the registers that AMD documents of the matrix instruction.
//
// Compiled as `gt_lang.h` + `mma_amd.inc` (KERNELS) in the middle of this file. Exit status 0: every product is exact.
#include "matrix_items.h"

struct Deposit {
    double a[8], b[8];
};
static Meeting waves[4] = {{64}, {64}, {64}, {64}};
static Deposit deposits[4][64];

/// An instruction with one block of side x side.
struct Instruction {
    const char *name;
    gt::Number number;
    int side, k;
};
static constexpr Instruction kInstructions[] = {
    {"f32_32x32x8bf16_1k", gt::Number::kBf16, 32, 8},     {"f32_32x32x8f16", gt::Number::kFp16, 32, 8},
    {"f32_32x32x2f32", gt::Number::kFp32, 32, 2},         {"f64_16x16x4f64", gt::Number::kFp64, 16, 4},
    {"i32_32x32x16_i8", gt::Number::kInt8, 32, 16},       {"i32_32x32x8i8", gt::Number::kInt8, 32, 8},
    {"f32_32x32x16_fp8_fp8", gt::Number::kFp8Fnuz, 32, 16},
};

// The mappings that AMD's matrix instruction calculator prints for CDNA 2 and 3. For 32x32x8 bf16: A[i][k] is in lane
// 32 * floor(k / 4) + i, register floor(k / 2) % 2, bits 16 * (k % 2); B[k][j] in lane 32 * floor(k / 4) + j likewise;
// the others have as many k a lane as its registers hold.
static double element(const Instruction &of, const double *(*held)(int lane), int row, int k) {
    const int each = of.k * of.side / 64;
    return held(of.side * (k / each) + row)[k % each];
}
// D: lane (32 * floor(i / 4)) % 64 + j and register 4 * floor(i / 8) + i % 4 for 32x32; lane 16 * (i % 4) + j and
// register floor(i / 4) for fp64.
static bool holds(const Instruction &of, int i, int j, int lane, int r) {
    if (of.side == 16) return lane == 16 * (i % 4) + j && r == i / 4;
    return lane == 32 * (i / 4) % 64 + j && r == 4 * (i / 8) + i % 4;
}

static const double *left_of(int lane) { return deposits[item.local / 64][lane].a; }
static const double *right_of(int lane) { return deposits[item.local / 64][lane].b; }

template <class T>
static void gt_cpu_mfma(const char *name, T *c, const unsigned *a, const unsigned *b) {
    const int wave = static_cast<int>(item.local) / 64, lane = static_cast<int>(item.local) % 64;
    const Instruction *of = kInstructions;
    while (std::strcmp(of->name, name)) ++of;
    decode_registers(of->number, a, of->k * of->side / 64, deposits[wave][lane].a);
    decode_registers(of->number, b, of->k * of->side / 64, deposits[wave][lane].b);
    meet(waves[wave]);
    for (int i = 0; i < of->side; ++i) {
        const int j = lane % of->side;  // the only column that a lane holds, in both mappings
        for (int r = 0; r < of->side * of->side / 64; ++r) {
            if (!holds(*of, i, j, lane, r)) continue;
            double sum = 0.0;
            for (int k = 0; k < of->k; ++k) sum += element(*of, left_of, i, k) * element(*of, right_of, j, k);
            c[r] += static_cast<T>(sum);
        }
    }
    meet(waves[wave]);
}

#define GT_CPU
#define GT_CPU_MMA
#include KERNELS

int main() {
    int bad = product<float>("bf16", gt::Number::kBf16, gt_gemm_mfma_bf16, 128, 128, 192);
    bad += product<float>("fp16", gt::Number::kFp16, gt_gemm_mfma_fp16, 128, 128, 192);
    bad += product<float>("fp32", gt::Number::kFp32, gt_gemm_mfma_fp32, 128, 128, 192);
    bad += product<double>("fp64", gt::Number::kFp64, gt_gemm_mfma_fp64, 128, 128, 192);
    bad += product<gt_int>("int8", gt::Number::kInt8, gt_gemm_mfma_int8, 128, 128, 192);
    bad += product<gt_int>("narrow_int8", gt::Number::kInt8, gt_gemm_mfma_narrow_int8, 128, 128, 192);
    bad += product<float>("fp8", gt::Number::kFp8Fnuz, gt_gemm_mfma_fp8, 128, 128, 192);
    return bad != 0;
}

// Runs kernels/wmma_amd.inc on this CPU, with the registers that AMD documents of the matrix instruction.
//
// Compiled as `gt_lang.h` + `wmma_amd.inc` (KERNELS) in the middle of this file. Exit status 0: every product is exact.
#include "matrix_items.h"

struct Deposit {
    double a[16], b[16];
};
static Meeting waves[8] = {{32}, {32}, {32}, {32}, {32}, {32}, {32}, {32}};
static Deposit deposits[8][32];

struct Instruction {
    const char *name;
    gt::Number number;
    int generation;
};
static constexpr Instruction kInstructions[] = {
    {"f32_16x16x16_bf16_w32", gt::Number::kBf16, 11},
    {"f32_16x16x16_f16_w32", gt::Number::kFp16, 11},
    {"i32_16x16x16_iu8_w32", gt::Number::kInt8, 11},
    {"f32_16x16x16_bf16_w32_gfx12", gt::Number::kBf16, 12},
    {"f32_16x16x16_f16_w32_gfx12", gt::Number::kFp16, 12},
    {"f32_16x16x16_fp8_fp8_w32_gfx12", gt::Number::kFp8, 12},
    {"i32_16x16x16_iu8_w32_gfx12", gt::Number::kInt8, 12},
};

// The mappings that AMD's matrix instruction calculator prints for wave32 ("rdna3", "rdna4"; RDNA 3 and 4 ISA
// documents, "Wave Matrix Multiply Accumulate"). gfx11: A[i][k] is element k of the lanes i and i + 16. gfx12, 16 bits:
// lane 16 * (floor(k / 4) % 2) + i, register 2 * floor(k / 8) + floor(k / 2) % 2, the k % 2nd of it; gfx12, 8 bits:
// lane 16 * floor(k / 8) + i, register floor(k / 4) % 2, the k % 4th of it. B[k][j] likewise.
static double element(const Instruction &of, const double *(*held)(int lane), int row, int k) {
    if (of.generation == 11) {
        const double one = held(row)[k];
        return one == held(row + 16)[k] ? one : 1e6;  // the hardware wants both
    }
    if (gt::bytes_of(of.number) == 1) return held(16 * (k / 8) + row)[k % 8];
    return held(16 * (k / 4 % 2) + row)[2 * (2 * (k / 8) + k / 2 % 2) + k % 2];
}
// D[i][j]: gfx11 in lane (16 * i) % 32 + j, register floor(i / 2); gfx12 in lane 16 * floor(i / 8) + j, register i % 8.
static bool holds(const Instruction &of, int i, int j, int lane, int r) {
    if (of.generation == 11) return lane == 16 * i % 32 + j && r == i / 2;
    return lane == 16 * (i / 8) + j && r == i % 8;
}

static const double *left_of(int lane) { return deposits[item.local / 32][lane].a; }
static const double *right_of(int lane) { return deposits[item.local / 32][lane].b; }

template <class T>
static void gt_cpu_wmma(const char *name, T *c, const unsigned *a, const unsigned *b) {
    const int wave = static_cast<int>(item.local) / 32, lane = static_cast<int>(item.local) % 32;
    const Instruction *of = kInstructions;
    while (std::strcmp(of->name, name)) ++of;
    const int held = of->generation == 11 ? 16 : 8;
    decode_registers(of->number, a, held, deposits[wave][lane].a);
    decode_registers(of->number, b, held, deposits[wave][lane].b);
    meet(waves[wave]);
    for (int i = 0; i < 16; ++i) {
        const int j = lane % 16;  // the only column that a lane holds
        for (int r = 0; r < 8; ++r) {
            if (!holds(*of, i, j, lane, r)) continue;
            double sum = 0.0;
            for (int k = 0; k < 16; ++k) sum += element(*of, left_of, i, k) * element(*of, right_of, j, k);
            c[r] += static_cast<T>(sum);
        }
    }
    meet(waves[wave]);
}

#define GT_CPU
#define GT_CPU_MMA
#include KERNELS

int main() {
    int bad = product<float>("bf16", gt::Number::kBf16, gt_gemm_wmma_gfx11_bf16, 128, 128, 192);
    bad += product<float>("fp16", gt::Number::kFp16, gt_gemm_wmma_gfx11_fp16, 128, 128, 192);
    bad += product<gt_int>("int8", gt::Number::kInt8, gt_gemm_wmma_gfx11_int8, 128, 128, 192);
    bad += product<float>("bf16_gfx12", gt::Number::kBf16, gt_gemm_wmma_gfx12_bf16, 128, 128, 192);
    bad += product<float>("fp16_gfx12", gt::Number::kFp16, gt_gemm_wmma_gfx12_fp16, 128, 128, 192);
    bad += product<float>("fp8_gfx12", gt::Number::kFp8, gt_gemm_wmma_gfx12_fp8, 128, 128, 192);
    bad += product<gt_int>("int8_gfx12", gt::Number::kInt8, gt_gemm_wmma_gfx12_int8, 128, 128, 192);
    return bad != 0;
}

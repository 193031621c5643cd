// The table of rates against what data sheets state: rate * 2 * units * clock, to one percent, as they are rounded.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "host/rates.h"

namespace {

using gt::Number;
using gt::Rates;

int wrong = 0;

void compare(const char *card, const char *what, double made, double stated) {
    if (stated != 0.0 ? std::fabs(made / stated - 1.0) < 0.01 : made == 0.0) return;
    std::printf("%s: %s: the table makes %.2f T, the data sheet states %.2f T\n", card, what, made, stated);
    ++wrong;
}

/// In units of 10^12 a second. -1: not stated, or rounded too far to compare; 0: stated to be absent.
struct Card {
    const char *name, *architecture;
    double units, clock, tensor_clock;  // of data sheets, in 10^9 Hz
    double fp32, fp64, fp16, int32;
    double matrix_fp64, tf32, matrix_fp16, bf16, int8, fp8, matrix_fp32 = 0;
};

constexpr double kNone = -1.0;
constexpr Card kCards[] = {
    {"Tesla P100-SXM2-16GB", "sm_60", 56, 1.48, 1.48, 10.6, 5.3, 21.2, kNone, 0, 0, 0, 0, 0, 0},
    {"Tesla V100-SXM2-16GB", "sm_70", 80, 1.53, 1.53, 15.7, 7.8, 31.4, 15.7, 0, 0, 125, 0, 0, 0},
    {"Tesla T4", "sm_75", 40, 1.59, 1.59, 8.14, 0.2544, 16.28, kNone, 0, 0, 65.1, 0, 130.3, 0},
    {"NVIDIA A100-SXM4-80GB", "sm_80", 108, 1.41, 1.41, 19.5, 9.7, 78, 19.5, 19.5, 156, 312, 312, 624, 0},
    {"NVIDIA A40", "sm_86", 84, 1.74, 1.74, 37.4, 0.5846, 37.4, 18.7, 0, 74.8, 149.7, 149.7, 299.3, 0},
    {"NVIDIA GeForce RTX 3080", "sm_86", 68, 1.71, 1.71, 29.8, kNone, 29.8, kNone, 0, 29.8, 59.5, 59.5, 238, 0},
    {"NVIDIA GeForce RTX 4090", "sm_89", 128, 2.52, 2.52, 82.6, 1.29, 82.6, 41.3, 0, 82.6, 165.2, 165.2, 660.6, 330.3},
    {"NVIDIA H100 80GB HBM3", "sm_90", 132, 1.98, 1.83, 66.9, 33.5, 133.8, 33.5, 66.9, 494.7, 989.4, 989.4, 1978.9,
     1978.9},
    {"NVIDIA H100 PCIe", "sm_90a", 114, 1.755, 1.62, 51.2, 25.6, 102.4, 25.6, 51.2, 378, 756, 756, 1513, 1513},
    {"NVIDIA B200", "sm_100", 148, 1.98, 1.855, 75.0, 37.5, 150, 0, kNone, kNone, 2250, 2250, 4500, 4500},
    {"NVIDIA GeForce RTX 5090", "sm_120a", 170, 2.407, 2.407, 104.8, 1.637, 104.8, 0, 0, 104.8, 209.5, 209.5, 838, 419},
    {"Radeon Instinct MI25", "gfx900", 64, 1.5, 1.5, 12.3, 0.768, 24.6, 0, 0, 0, 0, 0, 0, 0},
    {"AMD Radeon Instinct MI50", "gfx906:sramecc+:xnack-", 60, 1.725, 1.725, 13.3, 6.6, 26.5, 0, 0, 0, 0, 0, 0, 0},
    {"AMD Instinct MI100", "gfx908", 120, 1.502, 1.502, 23.1, 11.5, 0, 0, 0, 0, 184.6, 92.3, 184.6, 0, 46.1},
    // Two devices of 110 units; packed fp32, which the data sheet counts among the matrix rates.
    {"AMD Instinct MI250X", "gfx90a:sramecc+:xnack-", 220, 1.7, 1.7, 95.7, 47.9, 0, 0, 95.7, 0, 383, 383, 383, 0, 95.7},
    {"AMD Instinct MI300X", "gfx942", 304, 2.1, 2.1, 163.4, 81.7, 0, 0, 163.4, 653.7, 1307.4, 1307.4, 2614.9, 2614.9,
     163.4},
    {"AMD Instinct MI355X", "gfx950", 256, 2.4, 2.4, 157.3, 78.6, 0, 0, 78.6, 0, 2500, 2500, 5000, 5000, 157.3},
    {"AMD Radeon RX 6950 XT", "gfx1030", 80, 2.31, 2.31, 23.65, kNone, 47.31, kNone, 0, 0, 0, 0, 0, 0},
    {"AMD Radeon RX 7900 XTX", "gfx1100", 96, 2.5, 2.5, 61.4, kNone, kNone, kNone, 0, 0, 122.8, 122.8, 122.8, 0},
    {"AMD Radeon RX 9070 XT", "gfx1201", 64, 2.97, 2.97, 48.7, kNone, kNone, kNone, 0, 0, 195, 195, 389, 389},
    {"Intel Iris Xe MAX Graphics", "dg1", 96, 1.65, 1.65, 2.53, 0, 5.07, kNone, 0, 0, 0, 0, 0, 0},
    // The rates of its matrix engines are Intel's for a clock, 128 (fp16) and 256 (int8) operations an engine.
    {"Intel Arc A770 Graphics", "dg2-g10", 512, 2.1, 2.1, 17.2, 0, 34.4, kNone, 0, 0, 137.6, 137.6, 275.3, 0},
    {"Intel Arc 140V GPU", "lnl", 64, 2.05, 2.05, 4.2, kNone, kNone, kNone, 0, kNone, kNone, kNone, 67, 0},
    {"Intel Arc B580 Graphics", "bmg-g21", 160, 2.67, 2.67, 13.67, kNone, 27.34, kNone, 0, kNone, kNone, kNone, kNone,
     0},
    {"Intel Arc B580 at its highest clock", "bmg-g21", 160, 2.85, 2.85, kNone, kNone, kNone, kNone, 0, kNone, kNone,
     kNone, 233, 0},
    // Two devices of 512 engines.
    {"Intel Data Center GPU Max 1550", "pvc", 1024, 1.6, 1.6, 52.4, 52.4, kNone, kNone, 0, 419.4, 838.9, 838.9, 1677.7,
     0},
};

void compare(const Card &card) {
    const Rates *rates = gt::rates_of(card.architecture);
    if (rates == nullptr) {
        std::printf("%s: no row for %s\n", card.name, card.architecture);
        ++wrong;
        return;
    }
    const double scale = 2.0 * card.units * card.clock / 1000.0;
    const auto lanes = [&](const char *what, double rate, double stated) {
        if (stated != kNone) compare(card.name, what, rate * scale, stated);
    };
    lanes("fp32", rates->fp32, card.fp32);
    lanes("fp64", rates->fp64, card.fp64);
    lanes("fp16", rates->fp16, card.fp16);
    lanes("int32", rates->int32, card.int32);
    const auto matrix = [&](const char *what, Number number, double stated) {
        if (stated == kNone) return;
        const double clock = gt::matrix_clock(number, card.name, card.clock * 1e9) / 1e12;
        compare(card.name, what, gt::matrix_rate(*rates, number, card.name) * 2.0 * card.units * clock, stated);
    };
    matrix("matrix fp64", Number::kFp64, card.matrix_fp64);
    matrix("matrix fp32", Number::kFp32, card.matrix_fp32);
    matrix("matrix tf32", Number::kTf32, card.tf32);
    matrix("matrix fp16", Number::kFp16, card.matrix_fp16);
    matrix("matrix bf16", Number::kBf16, card.bf16);
    matrix("matrix int8", Number::kInt8, card.int8);
    matrix("matrix fp8", Number::kFp8, card.fp8);
    matrix("matrix fp8 of gfx942", Number::kFp8Fnuz, card.fp8);
    compare(card.name, "clock of matrix units", gt::matrix_clock(Number::kFp16, card.name, card.clock * 1e9) / 1e9,
            card.tensor_clock);
}

}  // namespace

int main() {
    for (const Card &card : kCards) compare(card);
    for (const char *unknown : {"", "sm_", "sm_9", "sm_103a", "gfx90", "gfx1151", "gfx12", "mtl"}) {
        if (gt::rates_of(unknown) == nullptr) continue;
        std::printf("'%s' has a row\n", unknown);
        ++wrong;
    }
    // A card that is clocked lower than its data sheet, such as H100 NVL, is not credited with more than it has.
    compare("NVIDIA H100 NVL", "clock", gt::matrix_clock(Number::kFp16, "NVIDIA H100 NVL", 1.785e9) / 1e9, 1.785);
    return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

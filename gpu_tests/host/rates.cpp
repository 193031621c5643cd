#include "rates.h"

namespace gt {
namespace {

/// Sources. Rows without a card: CUDA C++ Programming Guide, table "Throughput of Native Arithmetic Instructions". Rows
/// with one: what its data sheet states, over 2, units and clock; tests/suites/rates_check.cpp does that sum. AMD's
/// stand as FLOPS/clock/CU in table 1 of the white papers of CDNA, CDNA 2, CDNA 3 and CDNA 4 as well.
///
/// Units of RDNA are counted in ones (counted_units); its matrix rates stand in "Using the Matrix Cores of AMD RDNA 4
/// architecture GPUs" (GPUOpen) as well. Units of Intel are vector engines (EUs), as the oneAPI GPU Optimization Guide
/// and "Introduction to the Xe-HPG Architecture" count them. Not here, as no source was at hand: sm_87, sm_103, sm_121,
/// gfx1151, skl, icllp; fp64 and tf32 of Xe2.
constexpr Rates kRates[] = {
    // architecture, fp32, fp64, fp16, int32,  matrix: fp64, tf32, fp16, bf16, int8, fp8, fp32
    {"sm_50", 128, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"sm_52", 128, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"sm_53", 128, 4, 256, 0, 0, 0, 0, 0, 0, 0, 0},
    {"sm_60", 64, 32, 128, 0, 0, 0, 0, 0, 0, 0, 0},            // P100
    {"sm_61", 128, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0},
    {"sm_62", 128, 4, 256, 0, 0, 0, 0, 0, 0, 0, 0},
    {"sm_70", 64, 32, 128, 64, 0, 0, 512, 0, 0, 0, 0},         // V100 and Volta white paper
    {"sm_75", 64, 2, 128, 64, 0, 0, 512, 0, 1024, 0, 0},       // T4 and Turing white paper
    {"sm_80", 64, 32, 256, 64, 64, 512, 1024, 1024, 2048, 0, 0},  // A100 and its white paper
    {"sm_86", 128, 2, 128, 64, 0, 256, 512, 512, 1024, 0, 0},  // A40, RTX 3090 and GA102 white paper
    {"sm_89", 128, 2, 128, 64, 0, 256, 512, 512, 1024, 1024, 0},  // RTX 4090 and Ada white paper
    {"sm_90", 128, 64, 256, 64, 128, 1024, 2048, 2048, 4096, 4096, 0},    // H100 SXM and Hopper white paper, table 3
    {"sm_100", 128, 64, 256, 0, 64, 2048, 4096, 4096, 8192, 8192, 0},  // B200 in HGX, Blackwell technical brief
    {"sm_120", 128, 2, 128, 0, 0, 256, 512, 512, 1024, 1024, 0},       // RTX 5090 and RTX Blackwell white paper
    {"gfx900", 64, 4, 128, 0, 0, 0, 0, 0, 0, 0, 0},                    // MI25
    {"gfx906", 64, 32, 128, 0, 0, 0, 0, 0, 0, 0, 0},                   // MI50
    {"gfx908", 64, 32, 0, 0, 0, 0, 512, 256, 512, 0, 128},               // MI100; packed fp16 of the lanes: not stated
    {"gfx90a", 128, 64, 0, 0, 128, 0, 512, 512, 512, 0, 128},            // MI250X, packed fp32; packed fp16: not stated
    {"gfx942", 128, 64, 0, 0, 128, 512, 1024, 1024, 2048, 2048, 128},    // MI300X, packed fp32; packed fp16: not stated
    {"gfx950", 128, 64, 0, 0, 64, 0, 2048, 2048, 4096, 4096, 128},       // MI355X, packed fp32; it lost tf32
    {"gfx1030", 64, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0},            // RX 6950 XT; fp64 of RDNA: not stated
    {"gfx1100", 128, 0, 0, 0, 0, 0, 256, 256, 256, 0, 0},       // RX 7900 XTX, paired fp32; packed fp16: not stated
    {"gfx1101", 128, 0, 0, 0, 0, 0, 256, 256, 256, 0, 0},
    {"gfx1102", 128, 0, 0, 0, 0, 0, 256, 256, 256, 0, 0},
    {"gfx1200", 128, 0, 0, 0, 0, 0, 512, 512, 1024, 1024, 0},
    {"gfx1201", 128, 0, 0, 0, 0, 0, 512, 512, 1024, 1024, 0},   // RX 9070 XT, paired fp32; packed fp16: not stated
    {"tgllp", 8, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0},                // Xe-LP: eight lanes, no fp64
    {"dg1", 8, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0},                  // Iris Xe MAX
    {"adl-s", 8, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0},
    {"adl-p", 8, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0},
    {"dg2-g10", 8, 0, 16, 0, 0, 0, 64, 64, 128, 0, 0},          // Arc A770; Xe-HPG has no fp64
    {"dg2-g11", 8, 0, 16, 0, 0, 0, 64, 64, 128, 0, 0},
    {"dg2-g12", 8, 0, 16, 0, 0, 0, 64, 64, 128, 0, 0},
    {"lnl", 16, 0, 32, 0, 0, 0, 128, 128, 256, 0, 0},           // Arc 140V; Xe2: engines twice as wide
    {"bmg-g21", 16, 0, 32, 0, 0, 0, 128, 128, 256, 0, 0},       // Arc B580
    {"pvc", 16, 16, 32, 0, 0, 128, 256, 256, 512, 0, 0},        // Data Center GPU Max 1550
};

/// Hopper white paper, table 3: the boost clock of tensor cores in tf32 and narrower formats is lower than the one for
/// fp64 and the ordinary lanes. B200: its 4.5 Pflop/s in fp8 over 148 SMs. A device's name begins so.
struct Clock {
    const char *name;
    double hz;
};
constexpr Clock kClocks[] = {
    {"NVIDIA H100 PCIe", 1.62e9},
    {"NVIDIA H100", 1.83e9},
    {"NVIDIA H200", 1.83e9},
    {"NVIDIA B200", 1.855e9},
};

}  // namespace

const Rates *rates_of(const std::string &architecture) {
    // AMD's names carry features behind a colon, NVIDIA's may end in a letter for code that later chips do not run.
    std::string plain = architecture.substr(0, architecture.find(':'));
    if (plain.compare(0, 3, "sm_") == 0 && (plain.back() == 'a' || plain.back() == 'f')) plain.pop_back();
    for (const Rates &rates : kRates) {
        if (plain == rates.architecture) return &rates;
    }
    return nullptr;
}

double matrix_rate(const Rates &rates, Number number, const std::string &device) {
    // White papers from Turing to RTX Blackwell: GeForce sums products in fp32 at half the rate. On RTX 50 that is so
    // of the plain instruction in fp8; the one with a scale for each block, used by no kernel here, has the whole rate.
    const double share = device.find("GeForce") != std::string::npos ? 0.5 : 1.0;
    switch (number) {
        case Number::kFp64: return rates.matrix_fp64;
        case Number::kInt8: return rates.matrix_int8;
        case Number::kTf32: return share * rates.matrix_tf32;
        case Number::kFp16: return share * rates.matrix_fp16;
        case Number::kBf16: return share * rates.matrix_bf16;
        case Number::kFp8:
        case Number::kFp8Fnuz: return share * rates.matrix_fp8;
        case Number::kFp32: return rates.matrix_fp32;
    }
    return 0.0;
}

double matrix_clock(Number number, const std::string &device, double told) {
    if (number == Number::kFp64) return told;
    for (const Clock &clock : kClocks) {
        if (device.rfind(clock.name, 0) == 0) return told > 0.0 && told < clock.hz ? told : clock.hz;
    }
    return told;
}

}  // namespace gt

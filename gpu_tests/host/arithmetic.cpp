#include "arithmetic.h"

#include <algorithm>

namespace gt {
namespace {

/// Operations in one clock of one compute unit (SM, CU); 0: the hardware has none of that kind.
///
/// NVIDIA: the tables "Peak rates" of the architecture white papers (Volta V100, Turing, GA100, GA102, AD102, GH100,
/// Blackwell), divided by their number of SMs and their boost clock. AMD: the CDNA 2, CDNA 3, RDNA 3 and RDNA 4 white
/// papers and the data sheets of MI250X, MI300X, RX 7900 XTX and RX 9070 XT, divided likewise. For instance H100 SXM:
/// 989.4 Tflop/s bf16 = 132 SMs x 4096 x 1.83 GHz.
struct Rates {
    const char *architecture;
    double vector_fp64, vector_fp32;
    double matrix_fp64, tf32, half, int8, fp8;
};
constexpr Rates kRates[] = {
    {"sm_60", 64, 128, 0, 0, 0, 0, 0},         {"sm_61", 8, 256, 0, 0, 0, 0, 0},
    {"sm_70", 64, 128, 0, 0, 1024, 0, 0},      {"sm_75", 4, 128, 0, 0, 1024, 2048, 0},
    {"sm_80", 64, 128, 128, 1024, 2048, 4096, 0},
    {"sm_86", 4, 256, 0, 512, 1024, 2048, 0},  {"sm_89", 4, 256, 0, 512, 1024, 2048, 2048},
    {"sm_90", 128, 256, 256, 2048, 4096, 8192, 8192},
    {"sm_100", 128, 256, 128, 4096, 8192, 16384, 16384},
    {"sm_120", 4, 256, 0, 512, 1024, 2048, 2048},
    {"gfx90a", 128, 128, 256, 0, 1024, 1024, 0},
    {"gfx942", 128, 256, 256, 1024, 2048, 4096, 4096},
    {"gfx1030", 8, 128, 0, 0, 0, 0, 0},        {"gfx1100", 8, 256, 0, 0, 512, 512, 0},
    {"gfx1101", 8, 256, 0, 0, 512, 512, 0},    {"gfx1200", 8, 256, 0, 0, 1024, 2048, 2048},
    {"gfx1201", 8, 256, 0, 0, 1024, 2048, 2048},
};

/// Clocks that the matrix rates of a data sheet are stated at, where the driver tells a higher one. The name begins so.
struct Clock {
    const char *name;
    double hz;
};
constexpr Clock kClocks[] = {
    {"NVIDIA H100 PCIe", 1.755e9}, {"NVIDIA H100", 1.83e9},  {"NVIDIA H200", 1.83e9},
    {"NVIDIA A100", 1.41e9},       {"NVIDIA B200", 1.85e9},
};

double rate(const Rates &rates, Number number, Engine engine, bool consumer) {
    if (engine == Engine::kVector) {
        if (number == Number::kFp64) return rates.vector_fp64;
        return number == Number::kFp32 ? rates.vector_fp32 : 0.0;  // the others depend on what the compiler makes of it
    }
    switch (number) {
        case Number::kFp64: return rates.matrix_fp64;
        case Number::kFp32: return 0.0;
        case Number::kInt8: return rates.int8;
        // Sums in fp32 run at half the rate on GeForce.
        case Number::kTf32: return consumer ? rates.tf32 / 2 : rates.tf32;
        case Number::kFp8:
        case Number::kFp8Fnuz: return consumer ? rates.fp8 / 2 : rates.fp8;
        default: return consumer ? rates.half / 2 : rates.half;
    }
}

}  // namespace

Roof arithmetic_roof(Context &context, Number number, Engine engine) {
    const Properties properties = context.backend.properties();
    const DeviceInfo &device = context.device();
    if (context.kind() == "cpu-runtime") return {};
    const std::string architecture = properties.architecture.substr(0, properties.architecture.find_first_of(":a", 4));
    for (const Rates &rates : kRates) {
        // gfx90a is the one name with a letter at its end that means another chip, not a variant.
        if (architecture != rates.architecture && properties.architecture.substr(0, 6) != rates.architecture) continue;
        const bool consumer = device.name.find("GeForce") != std::string::npos;
        const double per_clock = rate(rates, number, engine, consumer) * device.compute_units;
        double clock = properties.clock_hz;
        for (const Clock &known : kClocks) {
            if (engine == Engine::kMatrix && device.name.rfind(known.name, 0) == 0) {
                clock = known.hz;
                break;
            }
        }
        Roof roof;
        roof.at_clock = per_clock * context.telemetry().look().clock_hz;
        // A device may be clocked higher than its data sheet says.
        roof.value = std::max(per_clock * clock, roof.at_clock);
        roof.source = "datasheet:" + std::string(rates.architecture) + "*units*clock";
        return roof.value > 0.0 ? roof : Roof{};
    }
    return {};
}

}  // namespace gt

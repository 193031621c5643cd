// What the CPU section of kernels/gt_lang.h stands on: the item that runs, and how it meets the others of its group.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct GtCpuItem {
    std::uint32_t global, local, group, group_size, items;
};

extern __thread GtCpuItem gt_cpu_current;
inline const GtCpuItem &gt_cpu_item() { return gt_cpu_current; }

/// Wait until every item of the group that has not ended has come here.
void gt_cpu_barrier();
/// Hand in 64 bits and get those of another lane of this sub-group of 32, once every lane has handed in its own.
std::uint64_t gt_cpu_exchange(std::uint64_t bits, std::uint32_t lane);
/// End the launch with one of gt_sim::Status: a failed assertion, a trap.
[[noreturn]] void gt_cpu_fail(int status);

void gt_cpu_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/// Which arithmetic of kernels is broken on purpose; read by every atomic addition and every fused multiply-add.
enum GtCpuBroken { kGtCpuSound = 0, kGtCpuLosesAdds = 1, kGtCpuRoundsSums = 2 };
extern int gt_cpu_broken;
/// Whether this one addition is to be lost.
bool gt_cpu_loses_add();

template <class T>
inline T gt_cpu_shuffle(T value, std::uint32_t lane) {
    static_assert(sizeof(T) <= 8, "lanes exchange up to 64 bits");
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = gt_cpu_exchange(bits, lane);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T>
inline T gt_cpu_add(T *pointer, T value) {
    if (__builtin_expect(gt_cpu_broken == kGtCpuLosesAdds, 0) && gt_cpu_loses_add()) value = 0;
    return __atomic_fetch_add(pointer, value, __ATOMIC_SEQ_CST);
}

inline float gt_cpu_fma(float a, float b, float c) {
    const float exact = std::fma(a, b, c);
    if (__builtin_expect(gt_cpu_broken != kGtCpuRoundsSums, 1)) return exact;
    std::uint32_t bits;
    std::memcpy(&bits, &exact, sizeof bits);
    bits &= 0xFFFFE000u;  // what tf32 keeps
    float rounded;
    std::memcpy(&rounded, &bits, sizeof rounded);
    return rounded;
}

inline double gt_cpu_fma64(double a, double b, double c) {
    const double exact = std::fma(a, b, c);
    return __builtin_expect(gt_cpu_broken != kGtCpuRoundsSums, 1) ? exact
                                                                  : static_cast<double>(static_cast<float>(exact));
}

// Runs kernels/mma_nv.inc on this CPU: a thread an item, and the matrix instruction as the PTX ISA defines its fragments.
//
// Compiled as `gt_lang.h` + `mma_nv.inc` (KERNELS) in the middle of this file. Exit status 0: every product is exact.
#include <pthread.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "host/numbers.h"

struct Item {
    unsigned global, local, group, group_size, items;
};
static thread_local Item item;
static pthread_barrier_t group_barrier, warp_barriers[8];
static Item gt_cpu_item() { return item; }
static void gt_cpu_barrier() { pthread_barrier_wait(&group_barrier); }
template <class T>
T gt_cpu_shuffle(T value, unsigned) { return value; }  // not used by these kernels

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

template <class T>
using Kernel = void (*)(gt_uint, gt_uint, gt_uint, gt_uint, const gt_uchar *, gt_uint, const gt_uchar *, gt_uint, T *,
                        gt_uint, gt_uint *, gt_uint);

template <class T>
int product(const char *name, gt::Number number, Kernel<T> kernel) {
    const unsigned bytes = static_cast<unsigned>(gt::bytes_of(number)), m = 256, n = 384, k = 192 / bytes;
    const auto fill = [&](std::vector<unsigned char> &to, unsigned salt) {
        for (std::size_t i = 0; i < to.size() / bytes; ++i) {
            const std::uint64_t word = gt::encode_integer(number, gt::small_integer(salt, static_cast<unsigned>(i)));
            std::memcpy(&to[i * bytes], &word, bytes);
        }
    };
    std::vector<unsigned char> a(std::size_t{m} * k * bytes), b(std::size_t{n} * k * bytes);
    std::vector<T> c(m * n + 1, static_cast<T>(77777));
    fill(a, 1), fill(b, 2);
    gt_uint launches = 0;
    for (unsigned group = 0; group < m / 128 * (n / 128); ++group) {
        std::vector<std::thread> threads;
        for (unsigned local = 0; local < 256; ++local) {
            threads.emplace_back([&, local] {
                item = {group * 256 + local, local, group, 256, m / 128 * (n / 128) * 256};
                kernel(m * n, m, n, k, a.data(), 0, b.data(), 0, c.data(), 0, &launches, 0);
            });
        }
        for (std::thread &thread : threads) thread.join();
    }
    int bad = launches != 1 || c[m * n] != static_cast<T>(77777);
    for (unsigned i = 0; i < m; ++i) {
        for (unsigned j = 0; j < n; ++j) {
            int sum = 0;
            for (unsigned e = 0; e < k; ++e) sum += gt::small_integer(1, i * k + e) * gt::small_integer(2, j * k + e);
            bad += c[i * n + j] != static_cast<T>(sum);
        }
    }
    std::printf("%s %d\n", name, bad);
    return bad;
}

int main() {
    pthread_barrier_init(&group_barrier, nullptr, 256);
    for (pthread_barrier_t &barrier : warp_barriers) pthread_barrier_init(&barrier, nullptr, 32);
    int bad = product<float>("bf16", gt::Number::kBf16, gt_gemm_mma_bf16);
    bad += product<float>("fp16", gt::Number::kFp16, gt_gemm_mma_fp16);
    bad += product<float>("tf32", gt::Number::kTf32, gt_gemm_mma_tf32);
    bad += product<gt_int>("int8", gt::Number::kInt8, gt_gemm_mma_int8);
    bad += product<float>("fp8", gt::Number::kFp8, gt_gemm_mma_fp8);
    return bad != 0;
}

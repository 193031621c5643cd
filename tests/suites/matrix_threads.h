// A group of 256 work items as threads of this CPU, for kernels whose matrix instructions are emulated.
//
// Includes what gt_lang.h needs of a CPU; the kernels are included after this.
#pragma once

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
static pthread_barrier_t group_barrier;
static Item gt_cpu_item() { return item; }
static void gt_cpu_barrier() { pthread_barrier_wait(&group_barrier); }
template <class T>
T gt_cpu_shuffle(T value, unsigned) { return value; }  // not used by these kernels

template <class T>
using Kernel = void (*)(unsigned, unsigned, unsigned, unsigned, const unsigned char *, unsigned, const unsigned char *,
                        unsigned, T *, unsigned, unsigned *, unsigned);

/// Multiply two by three tiles of whole numbers over `row_bytes` of each row; print and return how many elements are
/// wrong.
template <class T>
int product(const char *name, gt::Number number, Kernel<T> kernel, unsigned tile_m, unsigned tile_n,
            unsigned row_bytes) {
    const unsigned bytes = static_cast<unsigned>(gt::bytes_of(number));
    const unsigned m = 2 * tile_m, n = 3 * tile_n, k = row_bytes / bytes;
    const auto fill = [&](std::vector<unsigned char> &to, unsigned salt) {
        for (std::size_t i = 0; i < to.size() / bytes; ++i) {
            const std::uint64_t word = gt::encode_integer(number, gt::small_integer(salt, static_cast<unsigned>(i)));
            std::memcpy(&to[i * bytes], &word, bytes);
        }
    };
    std::vector<unsigned char> a(std::size_t{m} * k * bytes), b(std::size_t{n} * k * bytes);
    std::vector<T> c(m * n + 1, static_cast<T>(77777));
    fill(a, 1), fill(b, 2);
    unsigned launches = 0;
    pthread_barrier_init(&group_barrier, nullptr, 256);
    for (unsigned group = 0; group < 6; ++group) {
        std::vector<std::thread> threads;
        for (unsigned local = 0; local < 256; ++local) {
            threads.emplace_back([&, local] {
                item = {group * 256 + local, local, group, 256, 6 * 256};
                kernel(m * n, m, n, k, a.data(), 0, b.data(), 0, c.data(), 0, &launches, 0);
            });
        }
        for (std::thread &thread : threads) thread.join();
    }
    pthread_barrier_destroy(&group_barrier);
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

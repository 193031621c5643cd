// A group of 256 work items on this CPU, for kernels whose matrix instructions are emulated: every item has a stack of
// its own, and one runs at a time until it waits for others.
//
// Includes what gt_lang.h needs of a CPU; the kernels are included after this.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "fakes/fibers.h"
#include "host/numbers.h"

struct Item {
    unsigned global, local, group, group_size, items;
};
static Item item;
static Item gt_cpu_item() { return item; }
template <class T>
T gt_cpu_shuffle(T value, unsigned) { return value; }  // not used by these kernels

/// Items that wait for each other.
struct Meeting {
    unsigned size = 0, arrived = 0, generation = 0;
};

constexpr unsigned kItems = 256;
static gt_sim::Stack caller, stacks[kItems];
static bool ended[kItems];
static bool gone_on;  // an item came to its end, or all of a meeting have come
static std::function<void()> body;
static Meeting whole_group{kItems};

static void meet(Meeting &meeting) {
    const unsigned before = meeting.generation;
    if (++meeting.arrived == meeting.size) meeting.arrived = 0, ++meeting.generation, gone_on = true;
    while (meeting.generation == before) gt_sim::change(stacks[item.local], caller);
}
static void gt_cpu_barrier() { meet(whole_group); }

static void run_item() {
    body();
    ended[item.local] = gone_on = true;
    gt_sim::change(stacks[item.local], caller);
    std::abort();  // nobody goes on with an item that has ended
}

static void run_group(unsigned group, unsigned groups) {
    for (unsigned local = 0; local < kItems; ++local) {
        ended[local] = false;
        gt_sim::prepare(stacks[local], run_item);
    }
    for (bool all_ended = false; !all_ended;) {
        all_ended = true, gone_on = false;
        for (unsigned local = 0; local < kItems; ++local) {
            if (ended[local]) continue;
            item = {group * kItems + local, local, group, kItems, groups * kItems};
            gt_sim::change(caller, stacks[local]);
            all_ended = all_ended && ended[local];
        }
        if (!gone_on) std::puts("items wait for each other at different places"), std::exit(2);
    }
}

/// Decode `count` numbers as they lie in an item's registers.
static void decode_registers(gt::Number number, const void *registers, int count, double *to) {
    const std::size_t bytes = gt::bytes_of(number);
    for (int i = 0; i < count; ++i) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, static_cast<const unsigned char *>(registers) + static_cast<std::size_t>(i) * bytes, bytes);
        to[i] = gt::decode(number, bits);
    }
}

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
    std::vector<int> left(std::size_t{m} * k), right(std::size_t{n} * k);
    std::vector<unsigned char> a(left.size() * bytes), b(right.size() * bytes);
    const auto fill = [&](std::vector<int> &numbers, std::vector<unsigned char> &to, unsigned salt) {
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            numbers[i] = gt::small_integer(salt, static_cast<unsigned>(i));
            const std::uint64_t word = gt::encode_integer(number, numbers[i]);
            std::memcpy(&to[i * bytes], &word, bytes);
        }
    };
    std::vector<T> c(m * n + 1, static_cast<T>(77777));
    fill(left, a, 1), fill(right, b, 2);
    unsigned launches = 0;
    body = [&] { kernel(m * n, m, n, k, a.data(), 0, b.data(), 0, c.data(), 0, &launches, 0); };
    for (unsigned group = 0; group < 6; ++group) run_group(group, 6);
    int bad = launches != 1 || c[m * n] != static_cast<T>(77777);
    for (unsigned i = 0; i < m; ++i) {
        for (unsigned j = 0; j < n; ++j) {
            int sum = 0;
            for (unsigned e = 0; e < k; ++e) sum += left[i * k + e] * right[j * k + e];
            bad += c[i * n + j] != static_cast<T>(sum);
        }
    }
    std::printf("%s %d\n", name, bad);
    return bad;
}

// Vector addition at odd sizes and offsets: does one kernel compute every element, and only those?
#include "../data.h"
#include "../test.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 64;

struct Case {
    std::uint32_t n, a0, b0, c0;
};

// Around the sizes of groups, sub-groups and pages; the offsets move every array against the others.
constexpr Case kAlways[] = {
    {1, 0, 0, 0},      {2, 1, 0, 3},     {63, 0, 3, 1},     {64, 17, 1, 0},      {65, 3, 17, 1},
    {255, 1, 1, 17},   {257, 0, 0, 3},   {1000, 3, 1, 0},   {4099, 17, 0, 1},    {65537, 1, 17, 3},
    {262147, 3, 0, 17},
};
// Larger ones while the budget lasts; they also reach across pages of 2 MiB.
constexpr Case kIfTime[] = {{1048583, 1, 3, 17}, {4194319, 17, 1, 3}, {16777259, 3, 17, 1}};

void one(Context &context, Handle kernel, const Case &c, std::uint32_t salt, Guarded::Bad &total) {
    Backend &backend = context.backend;
    Guarded a(backend, c.n, c.a0), b(backend, c.n, c.b0), sum(backend, c.n, c.c0);
    const auto left = [&](std::uint32_t i) { return bits(lattice(salt, i)); };
    const auto right = [&](std::uint32_t i) { return bits(lattice(salt + 1, i)); };
    a.fill(left);
    b.fill(right);
    sum.poison_all();
    backend.launch(kernel, c.n, kGroup,
                   {Arg::u32(c.n), Arg::mem(a.buffer()), Arg::u32(a.first()), Arg::mem(b.buffer()),
                    Arg::u32(b.first()), Arg::mem(sum.buffer()), Arg::u32(sum.first())});
    const Guarded::Bad out =
        sum.verify([&](std::uint32_t i) { return bits(lattice(salt, i) + lattice(salt + 1, i)); });
    const Guarded::Bad in_a = a.verify(left), in_b = b.verify(right);
    context.check("sum_exact_n" + std::to_string(c.n), c.n, out.payload,
                  out.payload ? "first at element " + std::to_string(out.first) : "");
    total.canaries += out.canaries + in_a.canaries + in_b.canaries;
    total.payload += in_a.payload + in_b.payload;
}

void vecadd(Context &context) {
    const DeviceInfo &device = context.open_device();
    const Handle kernel = context.backend.kernel(context.module("vecadd"), "gt_vecadd");
    const double started = context.elapsed();
    context.phase("compute");
    Guarded::Bad total;
    std::uint64_t arrays = 0, elements = 0;
    std::uint32_t salt = 1;
    const auto step = [&](const Case &c) {
        one(context, kernel, c, salt, total);
        salt += 2;
        arrays += 3;
        elements += 2 * std::uint64_t{c.n};
    };
    for (const Case &c : kAlways) step(c);
    double before = context.elapsed();
    double predicted = before - started;
    for (const Case &c : kIfTime) {
        // Each is four times the last; one of them holds six copies of its data, three of those on the device.
        if (before - started + 4 * predicted > context.options.budget) break;
        if (24 * std::uint64_t{c.n} > device.mem_bytes / 4) break;
        step(c);
        predicted = context.elapsed() - before;
        before = context.elapsed();
    }
    context.check("inputs_untouched", elements, total.payload);
    context.check("canaries_intact", arrays * 2 * kCanaryWords, total.canaries);
}

GT_TEST("vecadd", vecadd);

}  // namespace

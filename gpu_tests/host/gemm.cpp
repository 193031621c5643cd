#include "gemm.h"

#include <algorithm>
#include <cmath>

namespace gt {
namespace {

class KernelMultiplier : public Multiplier {
  public:
    KernelMultiplier(Context &context, Handle module, const GemmKernel &kernel)
        : context_(context), spec_(kernel), counter_(context.backend, 1, 0) {
        kernel_ = context.backend.kernel(module, kernel.symbol);
        if (kernel.shared > 0) context.backend.dynamic_shared(kernel_, kernel.shared);
        counter_.fill([](std::uint32_t) { return 0u; });
    }

    std::string name() const override { return spec_.name; }
    Number in() const override { return spec_.in; }
    Sum out() const override { return spec_.out; }
    Engine engine() const override { return spec_.engine; }
    Shape granule() const override { return spec_.edges ? Shape{1, 1, 1} : spec_.tile; }

    double multiply(const Operands &o) override {
        ++launches_;
        const std::size_t groups = std::size_t{(o.shape.m + spec_.tile.m - 1) / spec_.tile.m} *
                                   ((o.shape.n + spec_.tile.n - 1) / spec_.tile.n);
        return context_.backend.launch(
            kernel_, groups * spec_.group, spec_.group,
            {Arg::u32(o.shape.m * o.shape.n), Arg::u32(o.shape.m), Arg::u32(o.shape.n), Arg::u32(o.shape.k),
             Arg::mem(o.a), Arg::u32(o.a0), Arg::mem(o.b), Arg::u32(o.b0), Arg::mem(o.c), Arg::u32(o.c0),
             Arg::mem(counter_.buffer()), Arg::u32(counter_.first())});
    }

    std::uint64_t called() const override { return launches_; }
    std::uint64_t counted() override {
        counter_.fetch();
        return *counter_.payload();
    }

  private:
    Context &context_;
    GemmKernel spec_;
    Guarded counter_;
    Handle kernel_ = nullptr;
    std::uint64_t launches_ = 0;
};

std::size_t bytes_of(Sum sum) { return sum == Sum::kFp64 ? 8 : sum == Sum::kBf16 ? 2 : 4; }

double element(const std::uint32_t *words, Sum sum, std::size_t i) {
    switch (sum) {
        case Sum::kFp64: return decode(Number::kFp64, words[2 * i] | std::uint64_t{words[2 * i + 1]} << 32);
        case Sum::kBf16: return decode(Number::kBf16, words[i / 2] >> (i % 2 * 16) & 0xFFFFu);
        case Sum::kInt32: return static_cast<std::int32_t>(words[i]);
        default: return decode(Number::kFp32, words[i]);
    }
}

std::size_t words_for(std::size_t elements, std::size_t bytes) { return (elements * bytes + 3) / 4; }

/// The 32-bit word `i` of a matrix whose elements are `bits_at(e)`.
template <class F>
std::uint32_t packed(Number number, std::uint32_t i, F bits_at) {
    const auto bytes = static_cast<std::uint32_t>(bytes_of(number));
    if (bytes == 8) return static_cast<std::uint32_t>(bits_at(i / 2) >> (i % 2 * 32));
    std::uint64_t word = 0;
    for (std::uint32_t j = 0; j < 4 / bytes; ++j) word |= bits_at(i * (4 / bytes) + j) << (8 * bytes * j);
    return static_cast<std::uint32_t>(word);
}

/// Whole numbers, of both signs or positive ones whose sums grow.
struct Integers {
    std::uint32_t salt;
    bool positive;
    int operator()(std::uint32_t i) const {
        const int value = small_integer(salt, i);
        return positive ? 1 + (value & 3) : value;
    }
};

/// How far a result may be from the sum of its products, over the root mean square of such sums. fp32 keeps sums of
/// this length to 1e-5, matrix units add with fewer digits, and an output in bf16 has eight.
double tolerance(Number in, Sum out) {
    if (out == Sum::kInt32) return 0.0;
    if (out == Sum::kBf16) return 2e-2;
    if (out == Sum::kFp64) return 1e-12;
    if (in == Number::kFp8 || in == Number::kFp8Fnuz) return 1e-2;
    return in == Number::kFp32 ? 1e-4 : 1e-3;
}

class Measurement {
  public:
    Measurement(Context &context, MatrixData &data, Multiplier &multiplier, double seconds)
        : context_(context), data_(data), multiplier_(multiplier), seconds_(seconds) {}

    void run() {
        context_.phase(("check " + multiplier_.name()).c_str());
        exact("integers", rounded({130, 67, 45}), false);
        // Positive numbers: a sum that is kept in fewer than 13 bits cannot hold these.
        exact("large_sums", rounded({66, 65, multiplier_.out() == Sum::kBf16 ? 16u : 1024u}), true);
        if (!context_.first_failure().empty()) return;  // a rate of wrong results means nothing
        time(calibrate());
    }

  private:
    Shape rounded(Shape s) const {
        const Shape g = multiplier_.granule();
        const auto up = [](std::uint32_t value, std::uint32_t to) { return (value + to - 1) / to * to; };
        return {up(s.m, g.m), up(s.n, g.n), up(s.k, g.k)};
    }

    std::string named(const char *check) const { return multiplier_.name() + "_" + check; }

    /// Exact on whole numbers, by Freivalds' check: C * r == A * (B^T * r) in 64-bit integers, row by row. `r` has no
    /// zero, so a single wrong element is never missed, and two that are swapped with a chance of 2^-20.
    void exact(const char *name, Shape shape, bool positive) {
        const Number in = multiplier_.in();
        const Integers a{11, positive}, b{12, positive};
        Guarded left(context_.backend, words_for(std::size_t{shape.m} * shape.k, bytes_of(in)), 4);
        Guarded right(context_.backend, words_for(std::size_t{shape.n} * shape.k, bytes_of(in)), 8);
        const std::size_t results = std::size_t{shape.m} * shape.n;
        Guarded product(context_.backend, words_for(results, bytes_of(multiplier_.out())), 12);
        const auto word = [&](const Integers &of, std::uint32_t i) {
            return packed(in, i, [&](std::uint32_t e) { return encode_integer(in, of(e)); });
        };
        left.fill([&](std::uint32_t i) { return word(a, i); });
        right.fill([&](std::uint32_t i) { return word(b, i); });
        product.poison_all();
        multiplier_.multiply(at(shape, left, right, product));

        const std::uint64_t canaries = product.fetch();
        std::vector<std::int64_t> r(shape.n), x(shape.k, 0);
        for (std::uint32_t j = 0; j < shape.n; ++j) {
            r[j] = 1 + (mix(j ^ 0xF4E1u) >> 12);
            for (std::uint32_t k = 0; k < shape.k; ++k) x[k] += b(j * shape.k + k) * r[j];
        }
        const double most = 16.0 * shape.k;
        std::uint64_t bad = 0;
        for (std::uint32_t i = 0; i < shape.m; ++i) {
            std::int64_t sum = 0;
            bool whole = true;
            for (std::uint32_t j = 0; j < shape.n; ++j) {
                const double c = element(product.payload(), multiplier_.out(), std::size_t{i} * shape.n + j);
                whole = whole && std::fabs(c) <= most && c == std::floor(c);
                if (whole) sum += static_cast<std::int64_t>(c) * r[j];
            }
            for (std::uint32_t k = 0; k < shape.k; ++k) sum -= a(i * shape.k + k) * x[k];
            bad += !whole || sum != 0;
        }
        context_.check(named(name), shape.m, bad, bad ? "rows" : "");
        context_.check(named(name) + "_untouched", 4 * kCanaryWords,
                       canaries + left.fetch() + right.fetch() +
                           left.verify([&](std::uint32_t i) { return word(a, i); }).payload +
                           right.verify([&](std::uint32_t i) { return word(b, i); }).payload);
    }

    Operands at(Shape shape, const Guarded &a, const Guarded &b, const Guarded &c) const {
        const auto first = [](const Guarded &of, std::size_t bytes) {
            return static_cast<std::uint32_t>(of.first() * std::size_t{4} / bytes);
        };
        return {shape, a.buffer(), b.buffer(), c.buffer(), first(a, bytes_of(multiplier_.in())),
                first(b, bytes_of(multiplier_.in())), first(c, bytes_of(multiplier_.out()))};
    }

    /// The matrices of one size on the device, full of entropy.
    struct Matrices {
        Matrices(Context &context, MatrixData &data, const Multiplier &of, Shape s)
            : backend(context.backend),
              a_words(words_for(std::size_t{s.m} * s.k, bytes_of(of.in()))),
              b_words(words_for(std::size_t{s.n} * s.k, bytes_of(of.in()))),
              c_words(words_for(std::size_t{s.m} * s.n, bytes_of(of.out()))) {
            operands = {s, backend.alloc(a_words * 4), backend.alloc(b_words * 4), backend.alloc(c_words * 4)};
            data.fill(operands.a, 0, a_words, 21, static_cast<std::uint32_t>(of.in()));
            data.fill(operands.b, 0, b_words, 22, static_cast<std::uint32_t>(of.in()));
        }
        ~Matrices() {
            for (Handle buffer : {operands.a, operands.b, operands.c}) backend.free(buffer);
        }
        Matrices(const Matrices &) = delete;
        Matrices &operator=(const Matrices &) = delete;

        Backend &backend;
        std::size_t a_words, b_words, c_words;
        Operands operands;
    };

    Shape calibrate() {
        const Shape g = multiplier_.granule();
        const std::uint32_t step = std::max({g.m, g.n, g.k, 64u});
        const auto fits = [&](std::uint64_t s) {
            const std::uint64_t bytes = s * s * (2 * bytes_of(multiplier_.in()) + bytes_of(multiplier_.out()));
            return s <= 8192 && bytes <= context_.device().mem_bytes / 4;
        };
        const double wanted = std::min(0.02, seconds_ / 60);
        std::uint32_t side = step;
        while (true) {
            const Shape shape{side, side, side};
            Matrices matrices(context_, data_, multiplier_, shape);
            multiplier_.multiply(matrices.operands);
            const Time first = act(matrices.operands), second = act(matrices.operands);
            const double wall = std::max(std::min(first.wall, second.wall), 1e-7);
            const double grow = std::min(4.0, std::cbrt(wanted / wall));
            const std::uint32_t next = static_cast<std::uint32_t>(side * grow) / step * step;
            if (wall >= 0.7 * wanted || next <= side) return shape;
            std::uint32_t fitting = next;
            while (fitting > side && !fits(fitting)) fitting -= step;
            if (fitting <= side) return shape;
            side = fitting;
        }
    }

    Time act(const Operands &operands) {
        return on_wall([&] { return multiplier_.multiply(operands); });
    }

    void time(Shape shape) {
        Matrices matrices(context_, data_, multiplier_, shape);
        const auto poison = [&] { data_.fill(matrices.operands.c, 0, matrices.c_words, 31, kFillPoison); };
        poison();
        act(matrices.operands);
        context_.phase(("verify " + multiplier_.name()).c_str());
        sampled("samples", matrices);
        const std::uint32_t once = data_.sum(matrices.operands.c, 0, matrices.c_words);
        if (!context_.first_failure().empty()) return;
        SeriesOptions options;
        options.warm_up = 2;
        options.min_reps = 10;
        options.min_seconds = std::min(0.2, seconds_ / 4);
        options.max_seconds = seconds_ / 3;
        options.before = poison;
        const Series series = timed(context_, options, [&](std::size_t) { return act(matrices.operands); });
        const double flops = 2.0 * shape.m * shape.n * shape.k;
        const Roof roof = arithmetic_roof(context_, multiplier_.in(), multiplier_.engine());
        context_.phase("verify again");
        const std::uint32_t again = data_.sum(matrices.operands.c, 0, matrices.c_words);
        context_.check(named("repeats_bit_equal"), series.device.size(), again != once);
        if (multiplier_.counts()) {
            const std::uint64_t called = multiplier_.called();
            context_.check(named("every_launch_ran"), called, called != multiplier_.counted());
        }
        context_.metric("gemm_" + multiplier_.name(), multiplier_.out() == Sum::kInt32 ? "op/s" : "flop/s", "higher",
                        rates(flops, series.device), series.wall_ratio, roof);
    }

    /// One random row in each 64 and one random column: each place where they cross is compared with the sum in fp64,
    /// so no tile of C is left out.
    void sampled(const char *name, const Matrices &matrices) {
        const Shape s = matrices.operands.shape;
        const auto choose = [](std::uint32_t size, std::uint32_t salt) {
            std::vector<std::uint32_t> out;
            for (std::uint32_t from = 0; from < size; from += 64) {
                out.push_back(from + mix(from ^ salt) % std::min(64u, size - from));
            }
            return out;
        };
        const std::vector<std::uint32_t> rows = choose(s.m, 0xA0u), columns = choose(s.n, 0xB0u);
        const auto line = [&](std::uint32_t salt, std::uint32_t at) {
            std::vector<double> out(s.k);
            for (std::uint32_t k = 0; k < s.k; ++k) {
                out[k] = decode(multiplier_.in(), encode(multiplier_.in(), entropy(salt, at * s.k + k)));
            }
            return out;
        };
        std::vector<std::vector<double>> right;
        for (std::uint32_t column : columns) right.push_back(line(22, column));
        const std::size_t row_bytes = s.n * bytes_of(multiplier_.out());
        std::vector<std::uint32_t> got((row_bytes + 3) / 4);
        const double limit = tolerance(multiplier_.in(), multiplier_.out());
        std::uint64_t bad = 0;
        double worst = 0.0;
        for (std::uint32_t row : rows) {
            std::fill(got.begin(), got.end(), 0x7FC0A5A5u);
            context_.backend.read(matrices.operands.c, got.data(), row_bytes, row * row_bytes);
            const std::vector<double> left = line(21, row);
            for (std::size_t j = 0; j < columns.size(); ++j) {
                double sum = 0.0, squares = 0.0;
                for (std::uint32_t k = 0; k < s.k; ++k) {
                    const double product = left[k] * right[j][k];
                    sum += product;
                    squares += product * product;
                }
                const double error = std::fabs(element(got.data(), multiplier_.out(), columns[j]) - sum);
                const double relative = error / std::sqrt(squares);
                worst = std::max(worst, std::isfinite(relative) ? relative : INFINITY);
                bad += !(relative <= limit);
            }
        }
        char detail[80];
        std::snprintf(detail, sizeof detail, "largest error %.2g of %.2g allowed", worst, limit);
        context_.check(named(name), rows.size() * columns.size(), bad, detail);
    }

    Context &context_;
    MatrixData &data_;
    Multiplier &multiplier_;
    double seconds_;
};

}  // namespace

std::unique_ptr<Multiplier> kernel_multiplier(Context &context, Handle module, const GemmKernel &kernel) {
    return std::make_unique<KernelMultiplier>(context, module, kernel);
}

MatrixData::MatrixData(Context &context)
    : context_(context), counter_(context.backend, 1, 0), total_(context.backend, 1, 0) {
    const Handle module = context.module("matrix_data");
    fill_ = context.backend.kernel(module, "gt_matrix_fill");
    sum_ = context.backend.kernel(module, "gt_matrix_sum");
    counter_.fill([](std::uint32_t) { return 0u; });
}

void MatrixData::fill(Handle buffer, std::size_t first, std::size_t words, std::uint32_t salt, std::uint32_t kind,
                      float scale) {
    ++launches_;
    context_.backend.launch(fill_, words, 256,
                            {Arg::u32(static_cast<std::uint32_t>(words)), Arg::mem(buffer),
                             Arg::u32(static_cast<std::uint32_t>(first)), Arg::u32(salt), Arg::u32(kind),
                             Arg::f32(scale), Arg::mem(counter_.buffer()), Arg::u32(counter_.first())});
}

std::uint32_t MatrixData::sum(Handle buffer, std::size_t first, std::size_t words) {
    total_.fill([](std::uint32_t) { return 0u; });
    ++launches_;
    context_.backend.launch(sum_, std::min<std::size_t>(words, 1u << 18), 256,
                            {Arg::u32(static_cast<std::uint32_t>(words)), Arg::mem(buffer),
                             Arg::u32(static_cast<std::uint32_t>(first)), Arg::mem(total_.buffer()),
                             Arg::u32(total_.first()), Arg::mem(counter_.buffer()), Arg::u32(counter_.first())});
    total_.fetch();
    return *total_.payload();
}

void MatrixData::check() {
    const std::uint32_t wanted = static_cast<std::uint32_t>(launches_);
    const Guarded::Bad counted = counter_.verify([&](std::uint32_t) { return wanted; });
    context_.check("every_fill_ran", launches_, counted.payload + counted.canaries);
}

void measure(Context &context, MatrixData &data, Multiplier &multiplier, double seconds) {
    Measurement(context, data, multiplier, seconds).run();
}

}  // namespace gt

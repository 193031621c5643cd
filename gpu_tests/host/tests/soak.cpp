// Minutes of matrix products beside copies: no error, no correction by the hardware, and the rate of the start to the
// end.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "../data.h"
#include "../series.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 64;
constexpr std::uint32_t kLeastWidth = 64, kMostWidth = 4096;
constexpr double kProduct = 0.02;             // wanted seconds of one product
constexpr double kSustained = 0.95;           // of the first quarter's rate, on a GPU
constexpr std::uint32_t kCopyWords = 1u << 18;  // 1 MiB
constexpr std::size_t kSamples = 400;

/// The sums of the counters in which the kernel keeps what the link and the memory had to correct.
std::map<std::string, std::uint64_t> corrections(const std::string &bdf) {
    std::map<std::string, std::uint64_t> out;
    if (bdf.empty()) return out;
    const std::string device = "/sys/bus/pci/devices/" + bdf + "/";
    for (const char *name : {"aer_dev_correctable", "aer_dev_nonfatal", "aer_dev_fatal", "ras/umc_err_count",
                             "ras/gfx_err_count", "ras/sdma_err_count", "pcie_replay_count"}) {
        std::ifstream file(device + name);
        std::string word;
        // "RxErr 0", "ue: 0", or a number alone; the last line of an AER file is the sum of the others.
        while (file >> word) {
            char *end = nullptr;
            const unsigned long long count = std::strtoull(word.c_str(), &end, 10);
            if (end != word.c_str() && *end == '\0') out[name] += count;
        }
    }
    return out;
}

float small(std::uint32_t salt, std::uint32_t i) {
    return static_cast<float>(static_cast<int>(mix(i ^ mix(salt)) % 5u) - 2);
}

class Soak {
  public:
    explicit Soak(Context &context) : context_(context), backend_(context.backend) {
        context.open_device();
        const Handle module = context.module("soak");
        multiply_ = backend_.kernel(module, "gt_soak");
        compare_ = backend_.kernel(module, "gt_soak_compare");
        result_ = backend_.alloc(8);
        traffic_ = backend_.alloc(kCopyWords * 4);
        queue_ = backend_.queue();
    }

    void run() {
        const std::string &bdf = context_.device().bdf;
        const std::map<std::string, std::uint64_t> before = corrections(bdf);
        calibrate();
        if (!right_once()) return;
        soak();
        if (before.empty()) {
            context_.skipped("corrections", "the kernel keeps no counters of this device's errors");
        } else {
            std::uint64_t more = 0;
            std::string detail;
            for (const auto &[name, count] : corrections(bdf)) {
                const auto old = before.find(name);
                if (old != before.end() && count <= old->second) continue;
                ++more;
                detail += name + " grew to " + std::to_string(count) + "; ";
            }
            context_.check("nothing_corrected", before.size(), more, detail);
        }
    }

  private:
    std::uint32_t items() const { return width_ / 4 * (width_ / 4); }
    std::uint32_t words() const { return width_ * width_; }

    double product() {
        return on_wall([&] {
                   return backend_.launch(
                       multiply_, items(), kGroup,
                       {Arg::u32(items()), Arg::mem(c_), Arg::mem(a_), Arg::mem(b_), Arg::u32(width_)});
               })
            .wall;
    }

    void resize(std::uint32_t width) {
        for (Handle old : {a_, b_, c_, right_}) {
            if (old) backend_.free(old);
        }
        width_ = width;
        host_a_.resize(words()), host_b_.resize(words());
        for (std::uint32_t i = 0; i < words(); ++i) host_a_[i] = small(1, i), host_b_[i] = small(2, i);
        a_ = backend_.alloc(words() * 4);
        b_ = backend_.alloc(words() * 4);
        c_ = backend_.alloc(words() * 4);
        right_ = backend_.alloc(words() * 4);
        backend_.write(a_, host_a_.data(), words() * 4);
        backend_.write(b_, host_b_.data(), words() * 4);
    }

    void calibrate() {
        context_.phase("calibrate");
        for (std::uint32_t width = kLeastWidth;; width *= 2) {
            resize(width);
            product();
            if (product() > kProduct / 4 || width == kMostWidth) return;
        }
    }

    /// The product that all others are compared with: by Freivalds' check, C r == A (B r) for random r, exact in 64
    /// bits.
    bool right_once() {
        context_.phase("verify");
        std::vector<float> c(words(), 0.5f);
        backend_.write(c_, c.data(), words() * 4);
        product();
        backend_.read(c_, c.data(), words() * 4);
        std::uint64_t bad = 0;
        for (std::uint32_t pass = 0; pass < 4; ++pass) {
            std::vector<std::int64_t> r(width_), br(width_, 0);
            for (std::uint32_t k = 0; k < width_; ++k) r[k] = mix(k + 1000u * pass) % 1024u;
            for (std::uint32_t k = 0; k < width_; ++k) {
                for (std::uint32_t j = 0; j < width_; ++j)
                    br[k] += static_cast<std::int64_t>(host_b_[k * width_ + j]) * r[j];
            }
            for (std::uint32_t i = 0; i < width_; ++i) {
                std::int64_t left = 0, sum = 0;
                for (std::uint32_t j = 0; j < width_; ++j) {
                    const float word = c[i * width_ + j];
                    const bool whole = word >= -16777216.0f && word <= 16777216.0f &&
                                       word == static_cast<float>(static_cast<std::int32_t>(word));
                    bad += !whole;
                    left += whole ? static_cast<std::int64_t>(word) * r[j] : 0;
                    sum += static_cast<std::int64_t>(host_a_[i * width_ + j]) * br[j];
                }
                bad += left != sum;
            }
        }
        context_.check("product_exact", words(), bad, "width " + std::to_string(width_));
        backend_.write(right_, c.data(), words() * 4);
        return bad == 0;
    }

    void soak() {
        context_.phase("soak");
        std::vector<std::uint32_t> out(kCopyWords), back(kCopyWords);
        std::vector<double> times;
        std::uint64_t products = 0, wrong = 0, copied = 0, copied_wrong = 0;
        const double until = context_.elapsed() + context_.options.budget;
        while (products < 8 || context_.elapsed() < until) {
            const std::uint32_t salt = static_cast<std::uint32_t>(products);
            for (std::uint32_t i = 0; i < kCopyWords; ++i) out[i] = mix(i ^ mix(salt)), back[i] = 0xA5A5A5A5u;
            backend_.enqueue_copy(queue_, Place::in(traffic_), Place::from(out.data()), kCopyWords * 4);
            backend_.enqueue_copy(queue_, Place::at(back.data()), Place::in(traffic_), kCopyWords * 4);
            times.push_back(product());
            std::uint32_t found[2] = {0, 0};
            backend_.write(result_, found, sizeof found);
            backend_.launch(compare_, words(), kGroup,
                            {Arg::u32(words()), Arg::mem(c_), Arg::mem(right_), Arg::mem(result_)});
            found[0] = 0, found[1] = ~0u;
            backend_.read(result_, found, sizeof found);
            wrong += found[1] + (found[0] != words());
            backend_.finish(queue_);
            for (std::uint32_t i = 0; i < kCopyWords; ++i) copied_wrong += back[i] != out[i];
            copied += kCopyWords;
            ++products;
        }
        const std::size_t quarter = std::max<std::size_t>(times.size() / 4, 1);
        const double first = quantile({times.begin(), times.begin() + static_cast<std::ptrdiff_t>(quarter)}, 0.5);
        const double last = quantile({times.end() - static_cast<std::ptrdiff_t>(quarter), times.end()}, 0.5);
        context_.check("products_exact", products * words(), wrong, std::to_string(products) + " products");
        context_.check("copies_exact", copied, copied_wrong);
        if (wrong) return;  // a rate of wrong results means nothing
        std::vector<double> kept;
        const std::size_t step = times.size() / kSamples + 1;
        for (std::size_t i = 0; i < times.size(); i += step) kept.push_back(2.0 * width_ * words() / times[i]);
        context_.metric("soak_rate", "flop/s", "higher", kept);
        context_.metric("sustained", "1", "higher", {first / last});
        char text[100];
        std::snprintf(text, sizeof text, "%.3f of the first quarter's rate in the last", first / last);
        // Other work on the host slows a processor down, and says nothing about it.
        if (context_.device().kind == "gpu") context_.check("rate_is_sustained", 1, first / last < kSustained, text);
    }

    Context &context_;
    Backend &backend_;
    Handle multiply_ = nullptr, compare_ = nullptr, result_ = nullptr, traffic_ = nullptr, queue_ = nullptr;
    Handle a_ = nullptr, b_ = nullptr, c_ = nullptr, right_ = nullptr;
    std::vector<float> host_a_, host_b_;
    std::uint32_t width_ = 0;
};

void soak(Context &context) { Soak(context).run(); }

GT_TEST("soak", soak);

}  // namespace

// Managed memory of more than the device has: its pages must leave the device for others, and come back whole.
//
// Drivers have hung for good while they evicted pages, so a process of its own does it, and is left when it does not
// end.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "../child.h"
#include "../data.h"
#include "../hostmem.h"
#include "../machine.h"
#include "../numbered.h"

namespace {

using namespace gt;

// Pieces of a sixteenth of the device's memory: a kernel touches all of its piece at once, and finds room for that.
constexpr std::uint64_t kPieces = 20, kOfDevice = 16;
constexpr std::uint32_t kLooks = 64;                 // words of a piece that the host looks at by their address
constexpr double kLeast = 45.0, kOfBudget = 60.0;    // seconds for the process that does it: at least; times the budget

std::uint64_t words_of_piece(const DeviceInfo &device) { return device.mem_bytes / kOfDevice / 8 + 1; }

class Work {
  public:
    explicit Work(Context &context) : context_(context), backend_(context.backend) {
        context.open_device();
        words_ = static_cast<std::uint32_t>(words_of_piece(context.device()));
    }

    void run() {
        Numbered numbered(context_);
        context_.phase("allocate");
        for (std::uint64_t i = 0; i < kPieces; ++i) {
            memory_.push_back(backend_.alloc(std::size_t{words_} * 8, Memory::kManaged));
        }
        std::vector<std::uint32_t> order(kPieces);
        std::iota(order.begin(), order.end(), 0u);
        write(numbered, order, 2);
        check("first", numbered, order, 2);
        look(2);
        if (!context_.first_failure().empty()) return;
        // Now the other way round, and then in an order that is neither: what left last does not come back first.
        std::reverse(order.begin(), order.end());
        write(numbered, order, 3);
        std::sort(order.begin(), order.end(), [](std::uint32_t a, std::uint32_t b) { return mix(a) < mix(b); });
        check("again", numbered, order, 3);
        look(3);
        for (const Handle piece : memory_) backend_.free(piece);
        context_.metric("oversubscribed_write_bw", "B/s", "higher", writes_);
        context_.metric("oversubscribed_read_bw", "B/s", "higher", reads_);
    }

  private:
    static std::uint64_t base(std::uint32_t piece) { return std::uint64_t{piece} << 40; }
    double rate(double before) const { return 8.0 * words_ / (monotonic_seconds() - before); }

    void write(Numbered &numbered, const std::vector<std::uint32_t> &order, std::uint32_t pattern) {
        context_.phase("write");
        for (const std::uint32_t piece : order) {
            const double before = monotonic_seconds();
            numbered.write(memory_[piece], words_, base(piece), pattern);
            writes_.push_back(rate(before));
        }
    }

    void check(const std::string &name, Numbered &numbered, const std::vector<std::uint32_t> &order,
               std::uint32_t pattern) {
        context_.phase(("check " + name).c_str());
        std::uint64_t bad = 0;
        std::string where;
        for (const std::uint32_t piece : order) {
            const double before = monotonic_seconds();
            const std::uint64_t wrong = numbered.wrong(memory_[piece], words_, base(piece), pattern);
            reads_.push_back(rate(before));
            if (wrong && !bad) where = "piece " + std::to_string(piece) + ": " + numbered.where();
            bad += wrong;
        }
        context_.check("kernels_find_every_word_" + name, kPieces * words_, bad, where);
    }

    void look(std::uint32_t pattern) {
        context_.phase("host looks");
        std::uint64_t bad = 0;
        for (std::uint32_t piece = 0; piece < kPieces; ++piece) {
            const auto *words = static_cast<const volatile std::uint64_t *>(backend_.address(memory_[piece]));
            for (std::uint32_t i = 0; i < kLooks; ++i) {
                const std::uint32_t w = i == 0 ? 0 : i == 1 ? words_ - 1 : mix(pattern * kLooks + i) % words_;
                bad += words[w] != numbered_word(base(piece) + w, pattern);
            }
        }
        context_.check("host_finds_words_of_pattern_" + std::to_string(pattern), kPieces * kLooks, bad);
    }

    Context &context_;
    Backend &backend_;
    std::uint32_t words_;
    std::vector<Handle> memory_;
    std::vector<double> writes_, reads_;
};

void supervise(Context &context) {
    const DeviceInfo device = context.open_device();
    const Properties properties = context.backend.properties();
    context.require(properties.managed && properties.concurrent_managed, "managed memory that is paged on demand");
    // Where a page that goes to the device keeps its place on the host, that is where all of it comes to lie.
    const std::uint64_t bytes = kPieces * words_of_piece(device) * 8, needed = bytes + bytes / 8;
    if (host_room() < needed) {
        throw Inapplicable("the host may have to hold all of " + std::to_string(bytes >> 20) + " MiB, and has " +
                           std::to_string(host_room() >> 20) + " MiB to spare: " + std::to_string(needed >> 20) +
                           " MiB would do");
    }
    context.backend.close();  // this process must not depend on what the other one meets

    context.phase("oversubscribe");
    const double limit = std::max(kLeast, kOfBudget * context.options.budget);
    Child child(own_argv(context.options, context.options.test, context.options.budget, 2 * limit, {"role=work"}));
    const Ended &ended = child.wait(limit);
    for (const std::string &record : child.records()) {
        for (const std::string event : {"check", "metric"}) {
            if (record.find("{\"ev\":\"" + event + "\"") == 0) context.writer.relay(record);
        }
    }
    if (child.text("result", "status") == "skip") throw Inapplicable(child.text("result", "reason"));
    context.check("pages_come_and_go", 1, !ended.passed(), ended.passed() ? "" : child.story());
    computes(context, "next_process_computes");
}

void oversubscribe(Context &context) {
    const std::string role = context.argument("role");
    if (role == "work") Work(context).run();
    else if (role.empty()) supervise(context);
    else throw OwnError("oversubscribe has no role " + role);
}

GT_TEST("oversubscribe", oversubscribe);

}  // namespace

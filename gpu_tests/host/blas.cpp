#include "blas.h"

#include <dlfcn.h>

namespace gt {
namespace {

std::size_t bytes_of(Sum sum) { return sum == Sum::kFp64 ? 8 : sum == Sum::kBf16 ? 2 : 4; }

class BlasMultiplier : public Multiplier {
  public:
    BlasMultiplier(Context &context, Blas &blas, const BlasFormat &format)
        : backend_(context.backend),
          blas_(blas),
          format_(format),
          before_(backend_.event()),
          after_(backend_.event()) {}
    ~BlasMultiplier() override { backend_.free_event(before_), backend_.free_event(after_); }

    std::string name() const override { return format_.name; }
    Number in() const override { return format_.in; }
    Sum out() const override { return format_.out; }
    Engine engine() const override { return format_.engine; }
    Shape granule() const override { return {format_.multiple, format_.multiple, format_.multiple}; }

    double multiply(const Operands &o) override {
        const auto at = [&](Handle buffer, std::size_t first, std::size_t bytes) {
            return reinterpret_cast<void *>(backend_.native_address(buffer) + first * bytes);
        };
        const std::size_t in = gt::bytes_of(format_.in);
        backend_.record(before_, nullptr);
        try {
            blas_.enqueue(format_, o.shape, at(o.a, o.a0, in), at(o.b, o.b0, in), at(o.c, o.c0, bytes_of(format_.out)));
        } catch (const Inapplicable &e) {
            // What worked once, or works on every device, cannot be unsupported.
            if (launches_ > 0 || format_.everywhere) throw ApiFailure(e.what());
            throw;
        }
        ++launches_;
        backend_.record(after_, nullptr);
        backend_.finish(nullptr);
        return backend_.between(before_, after_);
    }

    std::uint64_t called() const override { return launches_; }
    bool counts() const override { return false; }
    std::uint64_t counted() override { throw OwnError("a vendor's BLAS counts no launches"); }

  private:
    Backend &backend_;
    Blas &blas_;
    const BlasFormat &format_;
    Handle before_, after_;
    std::uint64_t launches_ = 0;
};

}  // namespace

void *open_blas(Context &context, const char *symbol, const std::vector<const char *> &usual, const char *what) {
    const std::string &driver = context.options.library;
    void *const own = driver.empty() ? nullptr : ::dlopen(driver.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (own && ::dlsym(own, symbol)) return own;
    if (context.kind() == "fake") throw Unavailable(std::string("the fake driver has no ") + what);
    std::string why;
    for (const char *name : usual) {
        if (void *library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
        const char *error = ::dlerror();
        if (why.empty()) why = error ? error : name;
    }
    throw Unavailable(std::string("no ") + what + ": " + why);
}

void vendor_blas(Context &context, MatrixData &data, double seconds) {
    std::unique_ptr<Blas> blas;
    context.phase("open the vendor's BLAS");
    try {
        if (context.options.backend == "cuda") blas = open_cublas(context);
        else if (context.options.backend == "hip") blas = open_rocblas(context);
    } catch (const Unavailable &e) {
        return context.skipped("blas", e.what());
    }
    if (!blas) return context.skipped("blas", "no BLAS of a vendor goes with this backend");
    for (const BlasFormat &format : blas->formats()) {
        BlasMultiplier multiplier(context, *blas, format);
        try {
            measure(context, data, multiplier, seconds);
        } catch (const Inapplicable &e) {
            context.skipped(format.name, e.what());
        }
        if (!context.first_failure().empty()) return;
    }
}

}  // namespace gt

// Matrix products C = A * B^T: what multiplies, how it is checked, how it is timed.
#pragma once

#include <memory>
#include <string>

#include "arithmetic.h"
#include "data.h"
#include "series.h"

namespace gt {

/// A is m x k, B is n x k, C is m x n, all row-major.
struct Shape {
    std::uint32_t m = 0, n = 0, k = 0;
};

/// What the elements of C are.
enum class Sum { kFp32, kFp64, kInt32, kBf16 };

struct Operands {
    Shape shape;
    Handle a = nullptr, b = nullptr, c = nullptr;
    std::uint32_t a0 = 0, b0 = 0, c0 = 0;  // first elements
};

/// Something that multiplies matrices of one format on the opened device.
class Multiplier {
  public:
    virtual ~Multiplier() = default;
    virtual std::string name() const = 0;
    virtual Number in() const = 0;
    virtual Sum out() const = 0;
    virtual Engine engine() const = 0;
    /// Sizes must be multiples of these.
    virtual Shape granule() const { return {1, 1, 1}; }
    /// Multiply, wait, and return the device's own time, or the wall's when the device has no clock for it.
    virtual double multiply(const Operands &operands) = 0;
    /// Whether the kernels count their launches on the device; the other libraries' do not.
    virtual bool counts() const { return true; }
    /// How often `multiply` ran by the device's own count.
    virtual std::uint64_t counted() = 0;
    virtual std::uint64_t called() const = 0;
};

/// A kernel of ours: arguments n, m, n_, k, a, a0, b, b0, c, c0, launches, launches0.
struct GemmKernel {
    const char *name;
    const char *symbol;
    Number in;
    Sum out;
    Engine engine;
    Shape tile;          // of one group: rows and columns of C, and what k must be a multiple of
    bool edges;          // sizes need not be multiples of the tile
    std::size_t group;   // work items
    std::size_t shared;  // bytes of shared memory that are asked for at the launch
};
std::unique_ptr<Multiplier> kernel_multiplier(Context &context, Handle module, const GemmKernel &kernel);

/// Device code that makes and sums up matrices.
class MatrixData {
  public:
    explicit MatrixData(Context &context);
    /// Fill `words` 32-bit words from word `first` with the entropy of a format, or with kFillPoison.
    void fill(Handle buffer, std::size_t first, std::size_t words, std::uint32_t salt, std::uint32_t kind,
              float scale = 1.0f);
    std::uint32_t sum(Handle buffer, std::size_t first, std::size_t words);
    /// Every launch ran: to be checked at the end.
    void check();

  private:
    Context &context_;
    Handle fill_ = nullptr, sum_ = nullptr;
    Guarded counter_, total_;
    std::uint64_t launches_ = 0;
};

/// Check one multiplier on whole numbers and on random ones, and report its rate as `gemm_<name>`, all in about
/// `seconds`.
void measure(Context &context, MatrixData &data, Multiplier &multiplier, double seconds);

}  // namespace gt

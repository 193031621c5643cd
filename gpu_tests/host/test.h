// What a test sees: the opened device, a place for checks and metrics, and its registration.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "gt_api.h"
#include "wire.h"

namespace gt {

/// A measurement that cannot be true (time zero, faster than the clock on the wall): exit 3.
struct Implausible : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Options {
    std::string test;
    std::string backend = "opencl";
    std::string library;      // empty: the backend's usual library
    std::string device;       // empty: the first GPU, else the first device; an index, or a PCI address
    std::string kernels;      // folder of the device sources
    double budget = 3.0;      // seconds that the test may spend once its kernel has been compiled
    double deadline = 0.0;    // seconds after which the process ends itself; 0: never
};

class Context {
  public:
    Context(Backend &backend, Writer &writer, const Options &options)
        : backend(backend), writer(writer), options(options) {}

    Backend &backend;
    Writer &writer;
    const Options &options;

    /// Seconds since the context was made.
    double elapsed() const;
    /// Name what is being done; heartbeats carry it, so that a hang says where.
    void phase(const char *name) { writer.phase(name); }
    /// Enumerate, choose the device that the options ask for, report and open it. Throws ApiFailure when none is there.
    const DeviceInfo &open_device();
    /// Report one device and take its kind for the records that follow.
    void report(const DeviceInfo &device, std::size_t index);
    /// The device source of one kernel file, with the language header in front.
    std::string source(const std::string &file) const;
    /// Report a check of `checked` things of which `bad` are wrong. One bad check fails the test.
    void check(const std::string &name, std::uint64_t checked, std::uint64_t bad, const std::string &detail = "");
    /// Report a distribution of measurements; the median is its value.
    void metric(const std::string &name, const std::string &unit, const std::string &better,
                const std::vector<double> &samples, double wall_ratio = 0.0);

    const std::string &first_failure() const { return first_failure_; }
    std::size_t checks() const { return checks_; }
    const std::string &kind() const { return kind_; }

  private:
    double started_ = monotonic_seconds();
    std::string kind_ = "none";
    std::string first_failure_;
    std::size_t checks_ = 0;
    DeviceInfo device_;
};

struct TestEntry {
    const char *name;
    void (*body)(Context &);
};
std::vector<TestEntry> &tests();
struct RegisterTest {
    RegisterTest(const char *name, void (*body)(Context &)) { tests().push_back({name, body}); }
};
#define GT_TEST(name, body) static const ::gt::RegisterTest gt_registered_test(name, body)

}  // namespace gt

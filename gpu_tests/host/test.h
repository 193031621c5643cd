// What a test sees: the opened device, its code, a place for checks and metrics, and its registration.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gt_api.h"
#include "telemetry.h"
#include "wire.h"

namespace gt {

/// A measurement that cannot be true (time zero, above the roofline, faster than the clock on the wall): exit 3.
struct Implausible : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Options {
    std::string test;
    std::string backend = "opencl";
    std::string library;      // empty: the backend's usual library
    std::string device;       // empty: the first GPU, else the first device; an index, or a PCI address
    std::string kernels;      // folder of the device sources
    std::string artefacts;    // folder of the compiled device code; it need not exist
    std::string form;         // binary | ptx | spirv | source; empty: the first that loads
    double budget = 3.0;      // seconds that the test may spend once its kernel has been compiled
    double deadline = 0.0;    // seconds after which the process ends itself; 0: never
    std::vector<std::string> arguments;  // `--set KEY=VALUE`, for tests that run themselves as a child
};

/// The most that the hardware can give. A value beyond it by more than 2 % is implausible.
struct Roof {
    double value = 0.0;        // in the metric's unit; 0: not known
    std::string source;        // where it comes from: attr:memory_clock*bus, datasheet, link
    double at_clock = 0.0;     // the same at the clock that the device ran at; 0: not known
};

/// Why an artefact did not come along; empty: nobody said. `named`: it was said of this target, not of all.
struct Absence {
    std::string why;
    bool named = false;
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
    /// The device that is open, and its index in the driver's order.
    const DeviceInfo &device() const { return device_; }
    std::size_t index() const { return index_; }
    /// Report one device and take its kind for the records that follow.
    void report(const DeviceInfo &device, std::size_t index);

    /// The device source of one kernel file (`triad` for kernels/triad.inc), with the language header in front.
    std::string source(const std::string &file) const;
    /// The bytes of the artefact of one kernel file for a target; false when there is none.
    bool artefact(const std::string &file, const CodeTarget &target, std::string &code) const;
    Absence absence(const std::string &file, const CodeTarget &target) const;
    /// Load one kernel file in the first form that is at hand and that the driver takes, or in the form that the
    /// options ask for. The form is reported with the result. A driver that refuses every form: ApiFailure.
    Handle module(const std::string &file);
    /// The same for these targets alone, of which no other file is for.
    /// `definitions` stand before the source.
    Handle module(const std::string &file, const std::vector<CodeTarget> &targets, const std::string &definitions = "");
    const std::string &code_form() const { return code_form_; }

    /// The value of `--set KEY=VALUE`; empty when it was not given.
    std::string argument(const std::string &key) const;
    /// Skip the whole test when the device lacks what it is about.
    void require(bool there, const std::string &what) const;

    /// Report a check of `checked` things of which `bad` are wrong. One bad check fails the test.
    void check(const std::string &name, std::uint64_t checked, std::uint64_t bad, const std::string &detail = "");
    /// Report a distribution of measurements; the median is its value. Throws Implausible when a sample is no positive
    /// number, or the median is beyond the roof. `wall_ratio`: the device's time over the wall's, 0 when the wall
    /// timed.
    void metric(const std::string &name, const std::string &unit, const std::string &better,
                const std::vector<double> &samples, double wall_ratio = 0.0, const Roof &roof = {});
    /// Say that a part of the test does not apply, and why.
    void skipped(const std::string &part, const std::string &reason);

    const std::string &first_failure() const { return first_failure_; }
    std::size_t checks() const { return checks_; }
    const std::string &kind() const { return kind_; }
    Telemetry &telemetry() { return *telemetry_; }

  private:
    double started_ = monotonic_seconds();
    std::string kind_ = "none";
    std::string first_failure_;
    std::string code_form_;
    std::size_t checks_ = 0;
    std::size_t index_ = 0;
    DeviceInfo device_;
    std::unique_ptr<Telemetry> telemetry_ = no_telemetry();
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

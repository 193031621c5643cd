#include "test.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>

namespace gt {

std::vector<BackendEntry> &backends() {
    static std::vector<BackendEntry> list;
    return list;
}

std::vector<TestEntry> &tests() {
    static std::vector<TestEntry> list;
    return list;
}

namespace {

template <class T>
Arg scalar(T value) {
    Arg arg;
    std::memcpy(arg.bytes, &value, sizeof value);
    arg.size = sizeof value;
    return arg;
}

std::size_t choose(const std::vector<DeviceInfo> &devices, const std::string &wanted) {
    for (std::size_t i = 0; i < devices.size(); ++i) {
        if (wanted.empty() ? devices[i].kind == "gpu" : wanted == devices[i].bdf || wanted == std::to_string(i)) {
            return i;
        }
    }
    if (!wanted.empty()) throw ApiFailure("the driver does not offer the device " + wanted);
    return 0;
}

std::string slurp(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw OwnError("cannot read the device source " + path);
    std::ostringstream out;
    out << file.rdbuf();
    return out.str();
}

double percentile(const std::vector<double> &sorted, double p) {
    const double place = p * static_cast<double>(sorted.size() - 1);
    const std::size_t low = static_cast<std::size_t>(place);
    const std::size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - static_cast<double>(low));
}

}  // namespace

Arg Arg::mem(Handle h) {
    Arg arg;
    arg.buffer = h;
    return arg;
}
Arg Arg::u32(std::uint32_t v) { return scalar(v); }
Arg Arg::f32(float v) { return scalar(v); }

double Context::elapsed() const { return monotonic_seconds() - started_; }

void Context::report(const DeviceInfo &device, std::size_t index) {
    kind_ = device.kind;
    Record record("device");
    record.integer("index", index)
        .text("kind", device.kind)
        .text("name", device.name)
        .text("vendor", device.vendor)
        .text("driver", device.driver)
        .text("api", device.api_version)
        .text("platform", device.platform)
        .text("bdf", device.bdf)
        .text("uuid", device.uuid)
        .integer("mem_bytes", device.mem_bytes)
        .integer("compute_units", device.compute_units);
    writer.write(record);
}

const DeviceInfo &Context::open_device() {
    phase("enumerate");
    const std::vector<DeviceInfo> devices = backend.enumerate();
    if (devices.empty()) throw ApiFailure("the driver offers no device");
    const std::size_t index = choose(devices, options.device);
    device_ = devices[index];
    report(device_, index);
    phase("open");
    backend.open(index);
    return device_;
}

std::string Context::source(const std::string &file) const {
    return slurp(options.kernels + "/gt_lang.h") + "\n" + slurp(options.kernels + "/" + file);
}

void Context::check(const std::string &name, std::uint64_t checked, std::uint64_t bad, const std::string &detail) {
    const bool ok = bad == 0 && checked > 0;
    ++checks_;
    Record record("check");
    record.text("name", name).text("kind", kind_).boolean("ok", ok).integer("checked", checked).integer("bad", bad);
    if (!detail.empty()) record.text("detail", detail);
    writer.write(record);
    if (!ok && first_failure_.empty()) {
        first_failure_ = name + ": " + std::to_string(bad) + " of " + std::to_string(checked) + " wrong";
        if (!detail.empty()) first_failure_ += " (" + detail + ")";
    }
}

void Context::metric(const std::string &name, const std::string &unit, const std::string &better,
                     const std::vector<double> &samples, double wall_ratio) {
    if (samples.empty()) throw OwnError("the metric " + name + " has no samples");
    std::vector<double> sorted = samples;
    std::sort(sorted.begin(), sorted.end());
    Record record("metric");
    record.text("name", name)
        .text("kind", kind_)
        .text("unit", unit)
        .text("better", better)
        .number("value", percentile(sorted, 0.5))
        .integer("n", samples.size())
        .number("min", sorted.front())
        .number("p50", percentile(sorted, 0.5))
        .number("p95", percentile(sorted, 0.95))
        .number("max", sorted.back())
        .numbers("samples", samples);
    if (wall_ratio > 0.0) record.text("clock", "event").number("wall_ratio", wall_ratio);
    else record.text("clock", "wall");
    writer.write(record);
}

}  // namespace gt

#include "test.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

namespace gt {

std::vector<TestEntry> &tests() {
    static std::vector<TestEntry> list;
    return list;
}

namespace {

constexpr double kOverRoof = 1.02;

std::size_t choose(const std::vector<DeviceInfo> &devices, const std::string &wanted) {
    for (std::size_t i = 0; i < devices.size(); ++i) {
        if (wanted.empty() ? devices[i].kind == "gpu" : wanted == devices[i].bdf || wanted == std::to_string(i)) {
            return i;
        }
    }
    if (!wanted.empty()) throw ApiFailure("the driver does not offer the device " + wanted, Cause::kNoDevice);
    return 0;
}

bool slurp(const std::string &path, std::string &content) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return false;
    std::ostringstream out;
    out << file.rdbuf();
    content = out.str();
    return true;
}

std::string device_source(const std::string &path) {
    std::string content;
    if (!slurp(path, content)) throw OwnError("cannot read the device source " + path);
    return content;
}

double percentile(const std::vector<double> &sorted, double p) {
    const double place = p * static_cast<double>(sorted.size() - 1);
    const std::size_t low = static_cast<std::size_t>(place);
    const std::size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - static_cast<double>(low));
}

/// Put the state of the device beside a number; what is not known stays out.
void beside(Record &record, const DeviceState &state) {
    const auto known = [&](const char *key, double value) {
        if (value > 0.0) record.number(key, value);
    };
    known("sm_hz", state.clock_hz);
    known("mem_hz", state.memory_clock_hz);
    known("temp_c", state.temperature);
    known("power_w", state.power);
    known("link_width", state.link_width);
    known("link_gts", state.link_rate * 1e-9);
    known("bar_bytes", static_cast<double>(state.bar_bytes));
    if (!state.throttle.empty()) record.text("throttle", state.throttle);
}

}  // namespace

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
    if (devices.empty()) throw ApiFailure("the driver offers no device", Cause::kNoDevice);
    index_ = choose(devices, options.device);
    device_ = devices[index_];
    report(device_, index_);
    phase("open");
    backend.open(index_);
    telemetry_ = telemetry_of(device_.bdf, device_.vendor, device_.kind);
    return device_;
}

std::string Context::source(const std::string &file) const {
    return device_source(options.kernels + "/gt_lang.h") + "\n" +
           device_source(options.kernels + "/" + file + ".inc");
}

bool Context::artefact(const std::string &file, const CodeTarget &target, std::string &code) const {
    return slurp(options.artefacts + "/" + target.directory + "/" + file + "." + target.extension, code);
}

Absence Context::absence(const std::string &file, const CodeTarget &target) const {
    std::ifstream lines(options.artefacts + "/absent.tsv");
    for (std::string line; std::getline(lines, line);) {
        const std::size_t one = line.find('\t'), two = one == std::string::npos ? one : line.find('\t', one + 1);
        if (two == std::string::npos) continue;
        const std::string of = line.substr(0, one), kernel = line.substr(one + 1, two - one - 1);
        if ((of != "*" && of != target.directory) || (kernel != "*" && kernel != file)) continue;
        return {line.substr(two + 1), of != "*"};
    }
    return {};
}

Handle Context::module(const std::string &file) { return module(file, backend.targets()); }

Handle Context::module(const std::string &file, const std::vector<CodeTarget> &targets,
                       const std::string &definitions) {
    phase("load device code");
    std::string refusals, lacking;
    bool refused = false;
    for (const CodeTarget &target : targets) {
        if (!options.form.empty() && options.form != target.name) continue;
        std::string code;
        if (target.form == Form::kSource) {
            code = definitions + source(file);
        } else if (!artefact(file, target, code)) {
            if (lacking.empty()) lacking = absence(file, target).why;
            continue;
        }
        try {
            const Handle module = backend.module(target.form, code);
            code_form_ = target.name;
            return module;
        } catch (const Inapplicable &e) {
            refusals += "; " + target.name + ": " + e.what();
        } catch (const ApiFailure &e) {
            // The next form may still do: then this is what the module_load test is for.
            refusals += "; " + target.name + ": " + e.what();
            refused = true;
        }
    }
    const std::string what =
        options.form.empty() ? "no form of the device code loads" : "no " + options.form + " loads";
    if (refused) throw ApiFailure(what + refusals, Cause::kBadImage);
    // Nobody refused anything: what is missing is our artefacts and the guest's compiler.
    if (!lacking.empty()) refusals += "; artefacts: " + lacking;
    throw Inapplicable(what + ": none is at hand for this device" + refusals);
}

std::string Context::argument(const std::string &key) const {
    for (const std::string &argument : options.arguments) {
        if (argument.compare(0, key.size() + 1, key + "=") == 0) return argument.substr(key.size() + 1);
    }
    return "";
}

void Context::require(bool there, const std::string &what) const {
    if (!there) throw Inapplicable("the device or its driver has no " + what);
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
                     const std::vector<double> &samples, double wall_ratio, const Roof &roof) {
    if (samples.empty()) throw OwnError("the metric " + name + " has no samples");
    for (double sample : samples) {
        if (!(sample > 0.0) || !std::isfinite(sample)) {
            throw Implausible(name + " has a sample that is no positive number");
        }
    }
    std::vector<double> sorted = samples;
    std::sort(sorted.begin(), sorted.end());
    const double value = percentile(sorted, 0.5);
    Record record("metric");
    record.text("name", name)
        .text("kind", kind_)
        .text("unit", unit)
        .text("better", better)
        .number("value", value)
        .integer("n", samples.size())
        .number("min", sorted.front())
        .number("p50", value)
        .number("p95", percentile(sorted, 0.95))
        .number("max", sorted.back())
        .numbers("samples", samples);
    if (wall_ratio > 0.0) record.text("clock", "event").number("wall_ratio", wall_ratio);
    else record.text("clock", "wall");
    if (roof.value > 0.0) {
        record.number("roof", roof.value).text("roof_src", roof.source).number("frac_spec", value / roof.value);
        if (roof.at_clock > 0.0) record.number("frac_at_clock", value / roof.at_clock);
    }
    beside(record, telemetry_->look());
    writer.write(record);
    if (roof.value > 0.0 && better == "higher" && value > kOverRoof * roof.value) {
        char text[200];
        std::snprintf(text, sizeof text, "%s is %.4g %s, more than the %.4g that the hardware can give (%s)",
                      name.c_str(), value, unit.c_str(), roof.value, roof.source.c_str());
        throw Implausible(text);
    }
}

void Context::skipped(const std::string &part, const std::string &reason) {
    Record record("part");
    record.text("name", part).text("kind", kind_).text("status", "skip").text("reason", reason);
    writer.write(record);
}

}  // namespace gt

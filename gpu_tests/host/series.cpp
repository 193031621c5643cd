#include "series.h"

#include <algorithm>
#include <cstdio>

namespace gt {
namespace {

constexpr double kRatioLow = 0.5, kRatioHigh = 1.02;  // device time over wall time
// A CPU runtime's threads wait for the same processors as whoever measures them: on a busy host the waiting is the
// longer part. What is left to see is a clock that stands still.
constexpr double kRatioLowOnCpu = 0.002;
constexpr int kSeries = 3;
// No load makes the median so much slower than one repetition; on the processors that the load is on, it takes more.
constexpr double kOutlier = 100.0, kOutlierOnCpu = 1e4;

void thin(std::vector<double> &values) {
    for (std::size_t i = 0; i < values.size() / 2; ++i) values[i] = values[2 * i];
    values.resize(values.size() / 2);
}

struct Raw {
    std::vector<double> device, ratios;
};

Raw one_series(Context &context, const SeriesOptions &options, const std::function<Time(std::size_t)> &act) {
    context.phase("warm up");
    for (std::size_t i = 0; i < options.warm_up; ++i) act(i);
    if (options.before) options.before();
    context.phase("time");
    Raw raw;
    double spent = 0.0;
    for (std::size_t i = 0;; ++i) {
        const bool enough = raw.device.size() >= options.min_reps && spent >= options.min_seconds;
        if (enough && (spent >= options.max_seconds || raw.device.size() >= options.max_reps)) break;
        if (raw.device.size() == options.max_reps) thin(raw.device), thin(raw.ratios);
        const Time t = act(i);
        if (!(t.device > 0.0) || !(t.wall > 0.0)) throw Implausible("a repetition took no time on the device's clock");
        raw.device.push_back(t.device);
        raw.ratios.push_back(t.device / t.wall);
        spent += t.wall;
    }
    return raw;
}

}  // namespace

Series timed(Context &context, const SeriesOptions &options, const std::function<Time(std::size_t)> &act) {
    char text[160];
    for (int series = 1;; ++series) {
        const Raw raw = one_series(context, options, act);
        // Load on the machine stretches the wall's time of some repetitions, a lying clock is wrong in all of them: so
        // the one that agrees best must agree well enough. Nothing makes the device's time the longer one.
        const double ratio = quantile(raw.ratios, 0.5);
        const double best = *std::max_element(raw.ratios.begin(), raw.ratios.end());
        const bool cpu = context.kind() == "cpu-runtime";
        const double low = options.overhead ? 0.0 : cpu ? kRatioLowOnCpu : kRatioLow;
        const bool slow = ratio > kRatioHigh, fast = best < low;
        if (slow || fast) {
            if (series < kSeries) continue;
            std::snprintf(text, sizeof text,
                          "the device's clock shows %.4g of the wall clock's time (believable: %g to %g)",
                          fast ? best : ratio, low, kRatioHigh);
            throw Implausible(text);
        }
        const double fastest = *std::min_element(raw.device.begin(), raw.device.end());
        const double usual = quantile(raw.device, 0.5);
        if (fastest * (cpu ? kOutlierOnCpu : kOutlier) < usual) {
            std::snprintf(text, sizeof text, "one repetition took %.4g s, the median %.4g s", fastest, usual);
            throw Implausible(text);
        }
        return {raw.device, ratio};
    }
}

Time on_wall(const std::function<double()> &act) {
    const double before = monotonic_seconds();
    const double device = act();
    return {device, monotonic_seconds() - before};
}

std::vector<double> rates(double amount, const std::vector<double> &times) {
    std::vector<double> out;
    for (double time : times) out.push_back(amount / time);
    return out;
}

double quantile(std::vector<double> values, double q) {
    const auto place = values.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), place, values.end());
    return *place;
}

}  // namespace gt

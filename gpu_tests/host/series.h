// Timing: repetition, warm-up, and whether the device's clock can be believed.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "test.h"

namespace gt {

/// One timed act, in seconds: on the device's clock, and on the wall's around it.
struct Time {
    double device = 0.0, wall = 0.0;
};

struct SeriesOptions {
    std::size_t warm_up = 3;
    std::size_t min_reps = 20;
    std::size_t max_reps = 200;       // samples kept; a device that is faster still is timed on, and thinned
    double min_seconds = 0.2;
    double max_seconds = 1.0;         // stop here once min_reps and min_seconds are reached
    std::function<void()> before;     // after the warm-up of each series, outside the timing: poison the outputs
    bool overhead = false;            // the wall's time holds more than the act (a short one): ask only for order
};

struct Series {
    std::vector<double> device;       // seconds, one a repetition
    double wall_ratio = 0.0;          // median of device time over wall time
};

/// Time `act(i)` again and again. Three series in a row in which the device's clock contradicts the wall's, a time that
/// is not positive, or one that is a hundredth of the median: Implausible.
Series timed(Context &context, const SeriesOptions &options, const std::function<Time(std::size_t)> &act);

/// The act's own time on the wall's clock: for what has no device clock.
Time on_wall(const std::function<double()> &act);

/// `amount / t` for each time of a series: rates in units a second.
std::vector<double> rates(double amount, const std::vector<double> &times);

double quantile(std::vector<double> values, double q);

}  // namespace gt

// How many operations a second a device can do at most, in each format of numbers: a table of datasheets.
#pragma once

#include "numbers.h"
#include "test.h"

namespace gt {

enum class Engine {
    kVector,  // the ordinary lanes, one fused multiply-add each
    kMatrix,  // tensor cores, matrix cores, XMX
};

/// Floating-point (or integer) operations a second, a multiply-add being two, products of dense matrices summed in
/// fp32 (fp64 for fp64, 32-bit integers for int8). No value: nothing is known of this device.
Roof arithmetic_roof(Context &context, Number number, Engine engine);

}  // namespace gt

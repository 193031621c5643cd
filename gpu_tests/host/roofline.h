// What the hardware can give at most, from what its driver tells and from a table of datasheets.
#pragma once

#include "rates.h"
#include "test.h"

namespace gt {

/// The compute units of the opened device, counted as its rates are stated; 0: not known. HIP and OpenCL count those of
/// RDNA in pairs or in ones, as GPU_ENABLE_WGP_MODE has it; so the kernel is asked.
double counted_units(Context &context, const Rates &rates);

/// Bytes a second to and from the device's own memory.
Roof memory_roof(Context &context);

/// Bytes a second over the link between host and device, one direction.
Roof link_roof(Context &context);

/// The numbers that the ordinary lanes of a compute unit work on; kFp16 in packed pairs.
enum class Lanes { kFp32, kFp64, kFp16, kInt32 };

/// Operations a second of the ordinary lanes, a multiply-add being two: lanes * units * clock. No value: it is not
/// known how many lanes a unit of this device has.
Roof lanes_roof(Context &context, Lanes lanes);

}  // namespace gt

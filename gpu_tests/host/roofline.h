// What the hardware can give at most, from what its driver tells and from a table of datasheets.
#pragma once

#include "test.h"

namespace gt {

/// Bytes a second to and from the device's own memory.
Roof memory_roof(Context &context);

/// Bytes a second over the link between host and device, one direction.
Roof link_roof(Context &context);

}  // namespace gt

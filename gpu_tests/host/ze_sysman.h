// Level Zero's Sysman, which alone tells how much memory of a device is free.
#pragma once

#include <vector>

#include "ze_driver.h"

namespace gt {
namespace ze_driver {

class Sysman {
  public:
    /// Find the memory of the opened device. Nothing is found where the driver has no Sysman, or tells nothing of use.
    explicit Sysman(const Opened &on);
    /// Whether `memory` tells the truth.
    bool tells() const;
    MemoryInfo memory() const;

  private:
    void find();

    const Opened &on_;
    std::vector<ze::Object> modules_;  // of memory that is the device's own
};

}  // namespace ze_driver
}  // namespace gt

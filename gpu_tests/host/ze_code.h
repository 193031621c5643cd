// Level Zero's device code: modules, kernels, and how a kernel is started.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ze_driver.h"

namespace gt {
namespace ze_driver {

/// All modules and kernels of the opened device.
class Code {
  public:
    explicit Code(const Opened &on) : on_(on) {}

    std::vector<CodeTarget> targets() const;
    ze::Object module(Form form, const std::string &code);
    void unload(ze::Object module);
    std::string binary(ze::Object module) const;
    ze::Object kernel(ze::Object module, const char *name);
    void release();

  private:
    const Opened &on_;
    std::set<ze::Object> modules_;
    std::set<std::pair<ze::Object, ze::Object>> kernels_;  // (kernel, its module)
};

/// Append one launch to a command list. `event`, if any, is signalled when it is done.
void append_launch(const Opened &on, ze::Object list, ze::Object kernel, std::size_t items, std::size_t group,
                   const std::vector<Arg> &args, ze::Object event);

}  // namespace ze_driver
}  // namespace gt

// Level Zero's loader and the devices behind it: what the backend asks before it computes anything.
#pragma once

#include <string>
#include <vector>

#include "gt_api.h"
#include "ze_abi.h"

namespace ze {

struct Api {
#define GT_MEMBER(name, parameters) Result(*name) parameters = nullptr;
    GT_ZE_FUNCTIONS(GT_MEMBER)
    GT_ZE_NEWER_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
};

}  // namespace ze

namespace gt {
namespace ze_driver {

using ze::Api;

/// Throw what a status means.
void must(ze::Result status, const char *what);
Cause cause_of(ze::Result status);

/// Open the loader and look its functions up. Throws Unavailable when it is absent.
Api load_driver(const std::string &library, bool &fake);

struct Found {
    ze::Object driver, device;
    ze::DeviceProperties about;
};
/// Every device of every driver that takes kernels.
std::vector<Found> find_devices(const Api &api);
DeviceInfo describe(const Api &api, const Found &found, bool fake);

/// The device in use. The parts below it refer to it, and are empty while there is no context.
struct Opened {
    Api api;
    ze::Object driver = nullptr, device = nullptr, context = nullptr;
    ze::DeviceProperties about{};
    std::uint32_t ordinal = 0;  // of the group of queues that computes
};

ze::DeviceProperties properties_of(const Api &api, ze::Object device);
Properties properties_for_tests(const Api &api, ze::Object device, const ze::DeviceProperties &about);
/// The directory of artefacts that fit the device; empty when none does.
std::string target_of(const ze::DeviceProperties &about);
/// The first group of queues that computes.
std::uint32_t compute_ordinal(const Api &api, ze::Object device);
/// The text of a build's log, which is given back.
std::string take_log(const Api &api, ze::Object log);

}  // namespace ze_driver
}  // namespace gt

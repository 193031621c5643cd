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
    GT_ZE_1_5_FUNCTIONS(GT_MEMBER)
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
/// Handles that `get` lists in Level Zero's way: first how many, then which. Throws as `must` does.
template <class F>
std::vector<ze::Object> all(F get, const char *what) {
    std::uint32_t count = 0;
    must(get(&count, nullptr), what);
    std::vector<ze::Object> out(count);
    if (count) must(get(&count, out.data()), what);
    out.resize(count);
    return out;
}
/// Properties that are listed likewise.
template <class T>
std::vector<T> listed(ze::Object device, ze::Result (*get)(ze::Object, std::uint32_t *, T *)) {
    std::uint32_t count = 0;
    must(get(device, &count, nullptr), "a list of properties");
    std::vector<T> out(count, T{});
    if (count) must(get(device, &count, out.data()), "a list of properties");
    out.resize(count);
    return out;
}
/// The text of a build's log, which is given back.
std::string take_log(const Api &api, ze::Object log);

}  // namespace ze_driver
}  // namespace gt

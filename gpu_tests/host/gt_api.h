// The backend table: the little that a compute API must offer for every test to run on it.
//
// A backend is one file host/be_<name>.cpp that implements `Backend` by loading the driver's own library at run time
// (no vendor header, no link dependency) and registers itself. Tests are written once against this table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace gt {

/// The API is not installed here (its library is absent): the test is skipped.
struct Unavailable : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// The API refused or broke: a finding about the product under test.
struct ApiFailure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Our own fault (a missing kernel file, wrong usage): says nothing about the product.
struct OwnError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// One device as its driver describes it. Empty strings: the driver does not tell.
struct DeviceInfo {
    std::string name;
    std::string vendor;
    std::string driver;
    std::string api_version;
    std::string platform;
    std::string bdf;   // PCI address 0000:01:00.0
    std::string uuid;  // lower-case hex
    std::string kind;  // gpu | cpu-runtime | fake
    std::uint64_t mem_bytes = 0;
    std::uint32_t compute_units = 0;

    bool operator==(const DeviceInfo &o) const {
        return name == o.name && vendor == o.vendor && driver == o.driver && api_version == o.api_version &&
               platform == o.platform && bdf == o.bdf && uuid == o.uuid && kind == o.kind &&
               mem_bytes == o.mem_bytes && compute_units == o.compute_units;
    }
    bool operator!=(const DeviceInfo &o) const { return !(*this == o); }
};

/// A buffer, module or kernel, owned by the backend until it is closed or the object is freed.
using Handle = void *;

/// One kernel argument: a buffer, or a scalar of up to 8 bytes.
struct Arg {
    Handle buffer = nullptr;
    unsigned char bytes[8] = {};
    std::size_t size = 0;

    static Arg mem(Handle h);
    static Arg u32(std::uint32_t v);
    static Arg f32(float v);
};

/// All sizes are in bytes, all times in seconds. Every failure of the API is thrown as ApiFailure.
class Backend {
  public:
    virtual ~Backend() = default;
    /// Load the driver library; throws Unavailable when it is absent.
    virtual void load(const std::string &library) = 0;
    /// Ask the driver anew which devices there are; the order is the driver's.
    virtual std::vector<DeviceInfo> enumerate() = 0;
    /// Make the index-th device of the last enumeration the one in use: a context and one in-order queue.
    virtual void open(std::size_t index) = 0;
    virtual Handle alloc(std::size_t bytes) = 0;
    virtual void free(Handle buffer) = 0;
    /// Both copies return when the data has arrived.
    virtual void write(Handle buffer, const void *from, std::size_t bytes) = 0;
    virtual void read(Handle buffer, void *into, std::size_t bytes) = 0;
    /// Compile device source in the language of this backend.
    virtual Handle build(const std::string &source) = 0;
    virtual Handle kernel(Handle module, const char *name) = 0;
    /// Run `items` work items in groups of `group`, wait, and return the device's own time for it.
    virtual double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) = 0;
};

/// One entry of the list of backends, made by GT_BACKEND in the backend's file.
struct BackendEntry {
    const char *name;
    std::unique_ptr<Backend> (*make)();
};
std::vector<BackendEntry> &backends();
struct RegisterBackend {
    RegisterBackend(const char *name, std::unique_ptr<Backend> (*make)()) { backends().push_back({name, make}); }
};
#define GT_BACKEND(name, type)                                                                                  \
    static const ::gt::RegisterBackend gt_registered_backend(                                                   \
        name, []() -> std::unique_ptr<::gt::Backend> { return std::make_unique<type>(); })

}  // namespace gt

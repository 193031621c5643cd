// What tests of tier 3 do to the machine through sysfs: they look whom else it concerns first, and write only where the
// opened device is. Sources: Documentation/ABI/testing/sysfs-bus-pci, sysfs-module, Documentation/admin-guide/pm.
#pragma once

#include <string>
#include <vector>

#include "pci.h"
#include "test.h"

namespace gt {

/// The device under test as sysfs shows it.
struct OnPci {
    std::string root;                  // of sysfs
    std::string bdf;
    std::string folder;                // root/bus/pci/devices/BDF
    std::string driver;                // the kernel's driver; empty: none is bound
    std::string module;                // that has the driver; empty: it is built into the kernel
    std::vector<std::string> order;    // that module behind all that use it: the order of removal
};

/// In a child with `--set role=describe`: open the device, which reports it. False in any other process.
bool describes(Context &context);
/// Whether a new process computes; a check of this name.
bool computes(Context &context, const std::string &name);

/// The device that these options choose, asked for in a process of its own, so that this one has no file of its driver
/// open. Reports it. Throws Inapplicable where it is no PCI device of this machine.
OnPci device_on_pci(Context &context);

/// Throws Inapplicable when the module, or one that uses it, drives another PCI device or is in use by somebody.
void must_be_alone(const OnPci &device);

/// Throws Inapplicable when there is no such file, or it may not be written.
void must_be_writable(const std::string &path, const std::string &what);

/// The first line of a file; empty when there is none.
std::string line_of_file(const std::string &path);
/// Write a word to a file that is there already. Returns what went wrong; empty: nothing.
std::string write_word(const std::string &path, const std::string &word);
/// Wait until the device has its driver again.
bool bound_again(const OnPci &device, double seconds);

}  // namespace gt

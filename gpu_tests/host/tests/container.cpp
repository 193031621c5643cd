// Another test in a rootless podman container that has its device by CDI: the way in which an AI desktop runs models.
//
// The outer half makes the container and runs this same test in it; the inner half, told so by an argument, is the test
// that was asked for (`--set test=NAME`, local inference by default), and then looks around.
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "../child.h"
#include "../container.h"

namespace {

using namespace gt;

constexpr double kPatience = 900.0;   // seconds where no deadline is set: the one that started us ends us earlier
constexpr double kReserve = 5.0;      // seconds of a deadline that are kept to say what happened

std::string joined(const std::vector<std::string> &words) {
    std::string out;
    for (const std::string &word : words) out += (out.empty() ? "" : ",") + word;
    return out;
}

std::vector<std::string> parts(const std::string &text) {
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string word; std::getline(in, word, ',');) out.push_back(word);
    return out;
}

std::string wanted(const Context &context) {
    const std::string named = context.argument("test");
    return named.empty() ? "inference" : named;
}

const TestEntry &entry(const std::string &name) {
    for (const TestEntry &test : tests()) {
        if (name == test.name && name != "container") return test;
    }
    throw OwnError("there is no test '" + name + "' to be run in a container");
}

/// The user of this machine that root in the container really is; -1 when that cannot be read.
long outer_user() {
    std::ifstream map("/proc/self/uid_map");
    long inside = -1, outside = -1;
    map >> inside >> outside;
    return map ? outside : -1;
}

void inside(Context &context) {
    entry(wanted(context)).body(context);
    context.phase("look around");
    const char *cdi = std::getenv("KDMATRIX_CDI");
    const std::string mark = context.argument("cdi");
    context.check("in_a_container", 1, ::getpid() != 1 && ::access("/run/.containerenv", F_OK) != 0);
    const long user = outer_user();
    context.check("without_root", 1, user <= 0, "root in the container is user " + std::to_string(user) + " outside");
    context.check("described_by_cdi", 1, mark.empty() || !cdi || mark != cdi, "KDMATRIX_CDI=" + mark);
    const std::vector<std::string> nodes = parts(context.argument("nodes"));
    std::uint64_t missing = 0;
    for (const std::string &node : nodes) {
        struct stat seen;
        missing += ::stat(node.c_str(), &seen) != 0 || !S_ISCHR(seen.st_mode);
    }
    if (!nodes.empty()) context.check("device_files", nodes.size(), missing);
}

/// What the process in the container must see of the machine, beside its user space: the runner, and what options name.
std::vector<std::string> shown(const Options &options, const std::string &runner) {
    std::vector<std::string> out = {runner, options.kernels, options.artefacts};  // absolute, see gtrun.cpp
    if (options.library.find('/') != std::string::npos) out.push_back(options.library);
    if (const char *real = std::getenv("GT_FAKE_REAL")) out.push_back(real);
    return out;
}

std::vector<std::string> settings() {
    std::vector<std::string> out = {"HOME=/tmp", "POCL_CACHE_DIR=/tmp/pocl"};
    for (const char *name : {"GT_FAKE_FAULT", "GT_FAKE_REAL", "OCL_ICD_VENDORS", "LD_LIBRARY_PATH"}) {
        if (const char *value = std::getenv(name)) out.push_back(std::string(name) + "=" + value);
    }
    return out;
}

std::string own_path() {
    char path[PATH_MAX];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) throw OwnError("cannot tell where this runner lies");
    return std::string(path, static_cast<std::size_t>(n));
}

void outside(Context &context) {
    entry(wanted(context));  // a wrong name is told before a container is made
    const bool gpu = context.open_device().kind == "gpu";
    context.backend.close();
    context.phase("make a container");
    const Container container(gpu);
    const Options &options = context.options;
    const double patience = options.deadline > 0.0 ? options.deadline - context.elapsed() - kReserve : kPatience;
    std::vector<std::string> arguments = {"inside=yes", "cdi=" + container.marks().cdi, "test=" + wanted(context)};
    if (!container.marks().nodes.empty()) arguments.push_back("nodes=" + joined(container.marks().nodes));
    std::vector<std::string> argv = own_argv(options, "container", options.budget, patience, arguments);
    argv[0] = own_path();  // /proc/self is another process in there
    context.phase("run in a container");
    Child child(container.command(argv, shown(options, own_path()), settings()));
    child.wait(patience);
    for (const std::string &record : child.records()) {
        for (const char *event : {"\"check\"", "\"metric\"", "\"part\""}) {
            if (record.compare(0, 6 + std::string(event).size(), "{\"ev\":" + std::string(event)) == 0) {
                context.writer.relay(record);
            }
        }
    }
    const std::string status = child.text("result", "status");
    if (status == "skip") throw Inapplicable("in the container: " + child.text("result", "reason"));
    if (status == "implausible") throw Implausible("in the container: " + child.text("result", "reason"));
    // What never came to a result is the container's failure: that is the subject here.
    context.check("passed_in_a_container", 1, status != "pass", status == "pass" ? "" : child.story());
}

void container(Context &context) {
    if (context.argument("inside").empty()) outside(context);
    else inside(context);
}

GT_TEST("container", container);

}  // namespace

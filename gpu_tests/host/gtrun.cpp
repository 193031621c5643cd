// gtrun: runs one compute test in this process and says on stdout, record by record, what it saw.
//
//   gtrun run TEST [--backend NAME] [--library PATH] [--device INDEX|BDF] [--kernels DIR] [--artefacts DIR]
//                  [--form binary|ptx|spirv|source] [--budget SECONDS] [--deadline SECONDS] [--set KEY=VALUE]...
//   gtrun list
//
// Exit status: 0 pass, 1 fail, 2 error in the test itself, 3 implausible, 77 skip, 124 own deadline passed.
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "test.h"

#ifndef GT_BUILD
#define GT_BUILD "unknown"
#endif

namespace {

using namespace gt;

enum Exit { kPass = 0, kFail = 1, kError = 2, kImplausible = 3, kSkip = 77 };

struct Verdict {
    Exit code;
    const char *status;
    std::string reason;
};

double seconds(const std::string &text, const std::string &option) {
    char *end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(value > 0.0) || value > 1e6) {
        throw OwnError(option + " wants a number of seconds, not '" + text + "'");
    }
    return value;
}

/// A folder beside the one that the runner lies in.
std::string beside_runner(const char *name) {
    char path[PATH_MAX];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path - 1);
    std::string own(path, n > 0 ? static_cast<std::size_t>(n) : 0);
    const std::size_t bin = own.rfind('/');
    const std::size_t root = bin == std::string::npos || bin == 0 ? bin : own.rfind('/', bin - 1);
    return root == std::string::npos ? name : own.substr(0, root) + "/" + name;
}

/// The same file for a process that starts somewhere else.
std::string absolute(const std::string &path) {
    char resolved[PATH_MAX];
    return ::realpath(path.c_str(), resolved) ? resolved : path;
}

std::string form(const std::string &text) {
    for (const char *known : {"binary", "ptx", "spirv", "source"}) {
        if (text == known) return text;
    }
    throw OwnError("--form wants binary, ptx, spirv or source, not '" + text + "'");
}

Options parse(int argc, char **argv) {
    Options options;
    options.kernels = beside_runner("kernels");
    options.artefacts = beside_runner("artefacts");
    if (const char *library = std::getenv("GT_LIBRARY")) options.library = library;
    if (argc < 3 || std::strcmp(argv[1], "run") != 0) throw OwnError("usage: gtrun run TEST [options], or gtrun list");
    options.test = argv[2];
    for (int i = 3; i < argc; i += 2) {
        const std::string option = argv[i];
        if (i + 1 >= argc) throw OwnError(option + " wants a value");
        const std::string value = argv[i + 1];
        if (option == "--backend") options.backend = value;
        else if (option == "--library") options.library = value;
        else if (option == "--device") options.device = value;
        else if (option == "--kernels") options.kernels = absolute(value);
        else if (option == "--artefacts") options.artefacts = absolute(value);
        else if (option == "--form") options.form = form(value);
        else if (option == "--set") options.arguments.push_back(value);
        else if (option == "--budget") options.budget = seconds(value, option);
        else if (option == "--deadline") options.deadline = seconds(value, option);
        else throw OwnError("unknown option " + option);
    }
    return options;
}

template <class Entry>
const Entry &find(const std::vector<Entry> &entries, const std::string &name, const char *what) {
    for (const Entry &entry : entries) {
        if (name == entry.name) return entry;
    }
    throw OwnError(std::string("there is no ") + what + " '" + name + "' in this runner");
}

/// What is known of an execution however it ends.
struct Known {
    std::string kind = "none", code_form = "none", failure;

    void take(const Context &context) {
        kind = context.kind();
        failure = context.first_failure();
        if (!context.code_form().empty()) code_form = context.code_form();
    }
};

Verdict execute(const Options &options, Writer &writer, Known &known) {
    // What was already found wrong outweighs a reason to stop early.
    const auto unless_failed = [&](Exit code, const char *status, const char *reason) -> Verdict {
        if (!known.failure.empty()) return {kFail, "fail", known.failure};
        return {code, status, reason};
    };
    try {
        const TestEntry &test = find(tests(), options.test, "test");
        const std::unique_ptr<Backend> backend = find(backends(), options.backend, "backend").make();
        Context context(*backend, writer, options);
        try {
            writer.phase("load");
            backend->load(options.library);
            test.body(context);
        } catch (...) {
            known.take(context);
            throw;
        }
        known.take(context);
        if (!context.first_failure().empty()) return {kFail, "fail", context.first_failure()};
        // A test that looked at nothing has not passed.
        if (context.checks() == 0) return {kError, "error", "the test made no check"};
        return {kPass, "pass", ""};
    } catch (const Unavailable &e) {
        return {kSkip, "skip", e.what()};
    } catch (const Inapplicable &e) {
        return unless_failed(kSkip, "skip", e.what());
    } catch (const Implausible &e) {
        return unless_failed(kImplausible, "implausible", e.what());
    } catch (const ApiFailure &e) {
        return {kFail, "fail", e.what()};
    } catch (const std::exception &e) {
        return {kError, "error", e.what()};
    }
}

int run(const Options &options) {
    Writer writer;
    const double started = monotonic_seconds();
    Record hello("hello");
    hello.integer("schema", kWireSchema)
        .text("build", GT_BUILD)
        .text("test", options.test)
        .text("backend", options.backend)
        .integer("pid", static_cast<std::uint64_t>(::getpid()))
        .number("budget", options.budget);
    writer.write(hello);
    writer.start_heartbeat(options.deadline);
    Known known;
    const Verdict verdict = execute(options, writer, known);
    writer.stop_heartbeat();
    Record result("result");
    result.text("status", verdict.status)
        .text("kind", known.kind)
        .text("reason", verdict.reason.substr(0, 2000))
        .text("code_form", known.code_form)
        .number("secs", monotonic_seconds() - started);
    writer.write(result);
    return verdict.code;
}

int list() {
    for (const TestEntry &test : tests()) std::printf("test %s\n", test.name);
    for (const BackendEntry &backend : backends()) std::printf("backend %s\n", backend.name);
    return kPass;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc == 2 && std::strcmp(argv[1], "list") == 0) return list();
    Options options;
    try {
        options = parse(argc, argv);
    } catch (const std::exception &e) {
        std::fprintf(stderr, "gtrun: %s\n", e.what());
        return kError;
    }
    return run(options);
}
